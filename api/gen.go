package api

//go:generate sh -c "cd .. && protoc --plugin=protoc-gen-go=$(go tool -n google.golang.org/protobuf/cmd/protoc-gen-go) --plugin=protoc-gen-connect-go=$(go tool -n connectrpc.com/connect/cmd/protoc-gen-connect-go) --go_out=. --go_opt=module=vps --connect-go_out=. --connect-go_opt=module=vps,simple api/vps.proto"

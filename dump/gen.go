package dump

//go:generate sh -c "cd .. && protoc --plugin=protoc-gen-go=$(go tool -n google.golang.org/protobuf/cmd/protoc-gen-go) --go_out=. --go_opt=module=vps dump/header.proto dump/record.proto dump/network.proto"

// Command mkimage makes a test image in a directory: go run ./internal/testimage/mkimage [-redis] [-python] DIR.
package main

import (
	"flag"
	"fmt"
	"os"

	"vps/internal/testimage"
)

func main() {
	redis := flag.Bool("redis", false, "add Redis, kept running by init")
	python := flag.Bool("python", false, "add Python")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./internal/testimage/mkimage [-redis] [-python] DIR")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	var opts []testimage.Option
	if *redis {
		opts = append(opts, testimage.Redis(), testimage.Inittab("::respawn:/usr/bin/redis-server /etc/redis.conf --logfile /var/log/redis.log"))
	}
	if *python {
		opts = append(opts, testimage.Python())
	}
	if err := testimage.Make(flag.Arg(0), opts...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Command etcd-grpcproxy registers with the function by which etcd's own gRPC
// proxy registers itself.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy"
	"go.uber.org/zap"
)

func main() {
	etcd, service, address := os.Args[1], os.Args[2], os.Args[3]
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd}})
	if err != nil {
		log.Fatal(err)
	}
	grpcproxy.Register(zap.NewNop(), client, "etcd3_naming/"+service, address, 2)
	fmt.Println("registered")

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch word, moved, _ := strings.Cut(lines.Text(), " "); word {
		case "update":
			// It cannot change what it said; one more address it can give.
			grpcproxy.Register(zap.NewNop(), client, "etcd3_naming/"+service, moved, 2)
		case "stop":
			// The only way out that it has.
			client.Close()
		}
	}
}

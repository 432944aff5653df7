// Command etcd-naming registers a gRPC server with etcd's own naming package.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
)

func main() {
	etcd, service, address := os.Args[1], os.Args[2], os.Args[3]
	ctx := context.Background()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd}})
	check(err)
	manager, err := endpoints.NewManager(client, service)
	check(err)
	lease, err := client.Grant(ctx, 5)
	check(err)
	kept, err := client.KeepAlive(ctx, lease.ID)
	check(err)
	go func() {
		for range kept {
		}
	}()

	key := service + "/" + address
	register := func(metadata map[string]any) {
		endpoint := endpoints.Endpoint{Addr: address, Metadata: metadata}
		check(manager.AddEndpoint(ctx, key, endpoint, clientv3.WithLease(lease.ID)))
	}
	register(map[string]any{"weight": 3, "version": "v1", "zone": "a"})
	fmt.Println("registered")

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch word, _, _ := strings.Cut(lines.Text(), " "); word {
		case "update":
			register(map[string]any{"weight": 5, "version": "v2", "zone": "a"})
		case "stop":
			check(manager.DeleteEndpoint(ctx, key))
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

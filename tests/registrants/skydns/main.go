// Command skydns writes a SkyDNS record with the types of CoreDNS's etcd
// plugin, as programs that publish to CoreDNS do.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/netip"
	"os"
	"strings"

	"github.com/coredns/coredns/plugin/etcd/msg"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	etcd, service, address := os.Args[1], os.Args[2], netip.MustParseAddrPort(os.Args[3])
	ctx := context.Background()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd}})
	check(err)
	lease, err := client.Grant(ctx, 5)
	check(err)
	kept, err := client.KeepAlive(ctx, lease.ID)
	check(err)
	go func() {
		for range kept {
		}
	}()

	key := msg.Path("x1."+service+".skydns.local.", "skydns")
	put := func(weight int) {
		value, err := json.Marshal(msg.Service{
			Host: address.Addr().String(), Port: int(address.Port()),
			Priority: 10, Weight: weight, TTL: 60, Group: "g1",
		})
		check(err)
		_, err = client.Put(ctx, key, string(value), clientv3.WithLease(lease.ID))
		check(err)
	}
	put(20)
	fmt.Println("registered")

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch word, _, _ := strings.Cut(lines.Text(), " "); word {
		case "update":
			put(30)
		case "stop":
			_, err := client.Delete(ctx, key)
			check(err)
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

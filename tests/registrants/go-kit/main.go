// Command go-kit registers a server with the registrar of go-kit's sd/etcdv3.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/go-kit/kit/sd/etcdv3"
	kitlog "github.com/go-kit/log"
)

func main() {
	etcd, service, address := os.Args[1], os.Args[2], os.Args[3]
	client, err := etcdv3.NewClient(context.Background(), []string{etcd}, etcdv3.ClientOptions{})
	if err != nil {
		log.Fatal(err)
	}
	logger := kitlog.NewLogfmtLogger(os.Stderr)
	register := func(instance string) *etcdv3.Registrar {
		registrar := etcdv3.NewRegistrar(client, etcdv3.Service{
			Key:   "/services/" + service + "/1",
			Value: instance,
			TTL:   etcdv3.NewTTLOption(time.Second, 3*time.Second),
		}, logger)
		registrar.Register()
		return registrar
	}
	registrar := register(address)
	fmt.Println("registered")

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch word, moved, _ := strings.Cut(lines.Text(), " "); word {
		case "update":
			registrar = register(moved)
		case "stop":
			registrar.Deregister()
		}
	}
}

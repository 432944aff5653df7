// A gRPC server that registers itself in etcd. It needs nothing of lookaside's:
// a key on a lease is all that a registration is.
//
//	go run . -etcd http://127.0.0.1:2379 -service hello -listen 127.0.0.1:50051
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os/signal"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"google.golang.org/grpc"

	"lookaside/examples/clients/go/helloworld"
)

type greeter struct {
	helloworld.UnimplementedGreeterServer
	address string
}

func (g *greeter) SayHello(_ context.Context, request *helloworld.HelloRequest) (*helloworld.HelloReply, error) {
	return &helloworld.HelloReply{
		Message: fmt.Sprintf("Hello %s from %s", request.GetName(), g.address),
	}, nil
}

func main() {
	etcd := flag.String("etcd", "http://127.0.0.1:2379", "etcd's endpoints, or lookaside's registry; comma-separated")
	service := flag.String("service", "hello", "the name to register under")
	listen := flag.String("listen", "127.0.0.1:0", "where to listen; port 0 = any")
	advertise := flag.String("advertise", "", "HOST:PORT at which clients reach this server; empty = as it listens")
	ttl := flag.Duration("ttl", 15*time.Second, "how long the registration outlives a crash")
	format := flag.String("format", "plain", "what is written: plain (HOST:PORT) or naming (etcd's own endpoints package)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	listener, err := net.Listen("tcp", *listen)
	must(err)
	address := *advertise
	if address == "" {
		address = listener.Addr().String()
	}
	server := grpc.NewServer()
	helloworld.RegisterGreeterServer(server, &greeter{address: address})
	go func() { must(server.Serve(listener)) }()

	client, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(*etcd, ","),
		DialTimeout: 5 * time.Second,
		// Without these a silent network is noticed after a quarter of an hour.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
	})
	must(err)
	defer client.Close()
	prefix := "/etcd3_naming/" + *service
	key := prefix + "/" + address
	put := plain(client, key, address)
	if *format == "naming" {
		put, err = naming(client, prefix, key, address)
		must(err)
	}

	// Until the signal; only then may the server end, for until then calls come.
	registration{client, key, put, *ttl}.hold(ctx)
	time.AfterFunc(10*time.Second, server.Stop)
	server.GracefulStop()
}

// plain writes HOST:PORT.
func plain(client *clientv3.Client, key, address string) put {
	return func(ctx context.Context, lease clientv3.LeaseID) error {
		_, err := client.Put(ctx, key, address, clientv3.WithLease(lease))
		return err
	}
}

// naming writes what etcd's endpoints package writes.
func naming(client *clientv3.Client, prefix, key, address string) (put, error) {
	manager, err := endpoints.NewManager(client, prefix)
	return func(ctx context.Context, lease clientv3.LeaseID) error {
		return manager.AddEndpoint(ctx, key, endpoints.Endpoint{Addr: address}, clientv3.WithLease(lease))
	}, err
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A plain gRPC client. What it knows of the servers is one DNS name.
//
//	go run . dns:///hello.lookaside.internal
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc"
	// All that a Go client needs for grpclb: SRV records are looked up, and the
	// service config that DNS gives may name grpclb.
	_ "google.golang.org/grpc/balancer/grpclb"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"lookaside/examples/clients/go/helloworld"
)

func main() {
	name := flag.String("name", "world", "who is greeted")
	interval := flag.Duration("interval", time.Second, "time between calls")
	count := flag.Int("count", 0, "calls to make; 0 = no end")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("give a target: dns:///NAME, or dns://HOST:PORT/NAME to ask that DNS server")
	}

	conn, err := grpc.NewClient(flag.Arg(0), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	greeter := helloworld.NewGreeterClient(conn)
	for made := 1; ; made++ {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		reply, err := greeter.SayHello(ctx, &helloworld.HelloRequest{Name: *name})
		cancel()
		if err != nil {
			fmt.Printf("%v: %s\n", status.Code(err), status.Convert(err).Message())
		} else {
			fmt.Println(reply.GetMessage())
		}
		if made == *count {
			return
		}
		time.Sleep(*interval)
	}
}

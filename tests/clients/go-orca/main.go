// A backend that reports its load as grpc-go's own ORCA service does.
//
//	orca-backend -calls 100 -utilization 0.9
//
// It prints its address, serves nothing but reports, and ends with its standard input. Any other
// call fails with its address, so that a client's calls can be counted.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"
)

func main() {
	calls := flag.Float64("calls", 0, "calls per second")
	utilization := flag.Float64("utilization", 0, "utilisation of the application")
	flag.Parse()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	metrics := orca.NewServerMetricsRecorder()
	metrics.SetQPS(*calls)
	metrics.SetApplicationUtilization(*utilization)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return status.Errorf(codes.Unimplemented, "from %s", listener.Addr())
	}))
	if err := orca.Register(server, orca.ServiceOptions{ServerMetricsProvider: metrics}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}

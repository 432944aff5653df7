// A grpclb balancer on grpc-go, as a tutorial would write it: a goroutine for each
// stream, and a list that each stream encodes. Its argument is the length of the
// list; each line on standard input is a change.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	lb "google.golang.org/grpc/balancer/grpclb/grpc_lb_v1"
)

const port = 50051

type server struct {
	lb.UnimplementedLoadBalancerServer
	mu      sync.Mutex
	list    *lb.ServerList
	changed chan struct{}
}

func (s *server) BalanceLoad(stream lb.LoadBalancer_BalanceLoadServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
	opening := &lb.LoadBalanceResponse{LoadBalanceResponseType: &lb.LoadBalanceResponse_InitialResponse{
		InitialResponse: &lb.InitialLoadBalanceResponse{}}}
	if err := stream.Send(opening); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		list, changed := s.list, s.changed
		s.mu.Unlock()
		response := &lb.LoadBalanceResponse{LoadBalanceResponseType: &lb.LoadBalanceResponse_ServerList{
			ServerList: list}}
		if err := stream.Send(response); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func list(count, port int) *lb.ServerList {
	servers := make([]*lb.Server, count)
	for i := range servers {
		servers[i] = &lb.Server{
			IpAddress:        []byte{10, 0, byte(i >> 8), byte(i)},
			Port:             int32(port),
			LoadBalanceToken: fmt.Sprintf("%016x", i),
		}
	}
	return &lb.ServerList{Servers: servers}
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	s := &server{list: list(count, port), changed: make(chan struct{})}
	grpcServer := grpc.NewServer()
	lb.RegisterLoadBalancerServer(grpcServer, s)
	go func() { panic(grpcServer.Serve(listener)) }()
	fmt.Println("listening", listener.Addr())
	lines := bufio.NewScanner(os.Stdin)
	for version := 1; lines.Scan(); version++ {
		next := list(count, port+version%2)
		s.mu.Lock()
		changed := s.changed
		s.list, s.changed = next, make(chan struct{})
		s.mu.Unlock()
		close(changed)
	}
}

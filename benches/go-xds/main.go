// An xDS control plane on go-control-plane that serves one cluster's endpoints
// by ADS from its snapshot cache. Its argument is the number of endpoints; each
// line on standard input is a change.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	xds "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

const port = 50051

// All clients are one node to the cache, so that it keeps one snapshot.
type oneNode struct{}

func (oneNode) ID(*core.Node) string { return "bench" }

func endpoints(count, port int) *endpoint.ClusterLoadAssignment {
	all := make([]*endpoint.LbEndpoint, count)
	for i := range all {
		address := &core.SocketAddress{
			Address:       fmt.Sprintf("10.0.%d.%d", i>>8, i&255),
			PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(port)},
		}
		all[i] = &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{
			Endpoint: &endpoint.Endpoint{Address: &core.Address{
				Address: &core.Address_SocketAddress{SocketAddress: address}}}}}
	}
	return &endpoint.ClusterLoadAssignment{
		ClusterName: "bench",
		Endpoints:   []*endpoint.LocalityLbEndpoints{{LbEndpoints: all}},
	}
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	snapshots := cache.NewSnapshotCache(false, oneNode{}, nil)
	publish := func(version int) {
		snapshot, err := cache.NewSnapshot(strconv.Itoa(version), map[resource.Type][]types.Resource{
			resource.EndpointType: {endpoints(count, port+version%2)},
		})
		if err != nil {
			panic(err)
		}
		if err := snapshots.SetSnapshot(ctx, "bench", snapshot); err != nil {
			panic(err)
		}
	}
	publish(0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	grpcServer := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, xds.NewServer(ctx, snapshots, nil))
	go func() { panic(grpcServer.Serve(listener)) }()
	fmt.Println("listening", listener.Addr())
	lines := bufio.NewScanner(os.Stdin)
	for version := 1; lines.Scan(); version++ {
		publish(version)
	}
}

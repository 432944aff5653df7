//go:build !old

package main

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

func dial(target string, options []grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, options...)
}

func security(ca *string) (grpc.DialOption, error) {
	if ca == nil {
		return grpc.WithTransportCredentials(insecure.NewCredentials()), nil
	}
	tls, err := credentials.NewClientTLSFromFile(*ca, "")
	return grpc.WithTransportCredentials(tls), err
}

func idleTimeout(after time.Duration) (grpc.DialOption, error) {
	return grpc.WithIdleTimeout(after), nil
}

//go:build old

package main

import (
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

func dial(target string, options []grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.Dial(target, options...)
}

func security(ca *string) (grpc.DialOption, error) {
	if ca == nil {
		return grpc.WithInsecure(), nil
	}
	tls, err := credentials.NewClientTLSFromFile(*ca, "")
	return grpc.WithTransportCredentials(tls), err
}

func idleTimeout(time.Duration) (grpc.DialOption, error) {
	return nil, errors.New("unsupported: idle_seconds: came with grpc-go 1.56")
}

//go:build xds

package main

import (
	// All that a Go client needs for targets xds:///.
	_ "google.golang.org/grpc/xds"
)

// A gRPC client with a certificate of its own. The balancer decides by the names in it what
// the client may ask for.
//
//	go run ./with-certificates -ca ca.pem -cert own.pem -key own.key dns:///hello.lookaside.internal
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/grpclb"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"lookaside/examples/clients/go/helloworld"
)

func main() {
	ca := flag.String("ca", "", "the authority of the balancer's and the backends' certificates, in PEM")
	cert := flag.String("cert", "", "this client's certificate, in PEM; without it, it shows none")
	key := flag.String("key", "", "the key of that certificate")
	interval := flag.Duration("interval", time.Second, "time between calls")
	flag.Parse()
	if flag.NArg() != 1 || *ca == "" {
		log.Fatal("give -ca, and a target: dns:///NAME, or dns://HOST:PORT/NAME to ask that DNS server")
	}

	config, err := tlsConfig(*ca, *cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	// grpclb uses the channel's credentials for the balancer and for the backends.
	conn, err := grpc.NewClient(flag.Arg(0), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	greeter := helloworld.NewGreeterClient(conn)
	for ; ; time.Sleep(*interval) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		reply, err := greeter.SayHello(ctx, &helloworld.HelloRequest{Name: "world"})
		cancel()
		if err != nil {
			fmt.Printf("%v: %s\n", status.Code(err), status.Convert(err).Message())
		} else {
			fmt.Println(reply.GetMessage())
		}
	}
}

// tlsConfig trusts the authority in a file, and shows the certificate in another.
func tlsConfig(ca, cert, key string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", ca)
	}
	if cert != "" {
		// Read for each connection, so that a renewed certificate counts without a restart.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			own, err := tls.LoadX509KeyPair(cert, key)
			return &own, err
		}
	}
	return config, nil
}

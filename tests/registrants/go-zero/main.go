// Command go-zero registers a gRPC server as go-zero's zrpc does: by the
// publisher of core/discov.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/zeromicro/go-zero/core/discov"
)

func main() {
	etcd, service, address := os.Args[1], os.Args[2], os.Args[3]
	publisher := discov.NewPublisher([]string{etcd}, service, address)
	if err := publisher.KeepAlive(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("registered")

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch word, _, _ := strings.Cut(lines.Text(), " "); word {
		case "update":
			// Registers again, under the id of another lease.
			publisher.Pause()
			publisher.Resume()
		case "stop":
			publisher.Stop()
		}
	}
}

// An unmodified Go client of etcd against the endpoint given: leases,
// keepalives, watches, transactions, a mutex, and the official naming package.
// Prints "done" when all was as it is with etcd.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:        []string{os.Args[1]},
		DialTimeout:      5 * time.Second,
		RejectOldCluster: true,
		Context:          ctx,
	})
	must(err)
	defer client.Close()
	must(client.Sync(ctx))

	keys(ctx, client)
	naming(ctx, client)
	locking(ctx, client)
	fmt.Println("done")
}

func keys(ctx context.Context, client *clientv3.Client) {
	watch := client.Watch(clientv3.WithRequireLeader(ctx), "/go/",
		clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	created := <-watch
	expect(created.Created, "the watch is created")

	lease, err := client.Grant(ctx, 60)
	must(err)
	alive, err := client.KeepAlive(ctx, lease.ID)
	must(err)
	expect((<-alive).TTL == 60, "the lease is kept alive")
	put, err := client.Put(ctx, "/go/a", "1", clientv3.WithLease(lease.ID))
	must(err)

	txn, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision("/go/a"), "=", put.Header.Revision)).
		Then(clientv3.OpPut("/go/b", "2"), clientv3.OpPut("/go/c", "3"), clientv3.OpGet("/go/a")).
		Commit()
	must(err)
	expect(txn.Succeeded && len(txn.Responses[2].GetResponseRange().Kvs) == 1, "the transaction")
	_, err = client.Revoke(ctx, lease.ID)
	must(err)

	for _, events := range []int{1, 2, 1} {
		response := <-watch
		must(response.Err())
		expect(len(response.Events) == events, "one response for one revision")
		last := response.Events[events-1]
		expect(events == 2 || last.IsCreate() || string(last.PrevKv.Value) == "1", "the previous value")
	}
	must(client.RequestProgress(clientv3.WithRequireLeader(ctx)))
	progress := <-watch
	expect(progress.IsProgressNotify(), "progress is told")

	_, err = client.Compact(ctx, txn.Header.Revision)
	must(err)
	_, err = client.Get(ctx, "/go/a", clientv3.WithRev(put.Header.Revision))
	expect(errors.Is(err, rpctypes.ErrCompacted), "an old revision is compacted")
	late := <-client.Watch(ctx, "/go/", clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision))
	expect(errors.Is(late.Err(), rpctypes.ErrCompacted), "a late watch is told")
	_, err = client.Put(ctx, "/go/a", "1", clientv3.WithLease(lease.ID))
	expect(errors.Is(err, rpctypes.ErrLeaseNotFound), "a revoked lease is gone")

	status, err := client.Status(ctx, client.Endpoints()[0])
	must(err)
	expect(status.Leader == status.Header.MemberId, "the member leads")
	left, err := client.Get(ctx, "/go/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	must(err)
	expect(left.Count == 2 && string(left.Kvs[0].Key) == "/go/c", "what is left")
}

func naming(ctx context.Context, client *clientv3.Client) {
	manager, err := endpoints.NewManager(client, "game")
	must(err)
	updates, err := manager.NewWatchChannel(ctx)
	must(err)
	lease, err := client.Grant(ctx, 60)
	must(err)
	for _, address := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
		endpoint := endpoints.Endpoint{Addr: address, Metadata: "7"}
		must(manager.AddEndpoint(ctx, "game/"+address, endpoint, clientv3.WithLease(lease.ID)))
		added := <-updates
		expect(len(added) == 1 && added[0].Op == endpoints.Add && added[0].Endpoint.Addr == address, "an endpoint is added")
	}
	all, err := manager.List(ctx)
	must(err)
	expect(len(all) == 2, "two endpoints are listed")
	must(manager.DeleteEndpoint(ctx, "game/10.0.0.1:80"))
	gone := <-updates
	expect(gone[0].Op == endpoints.Delete && gone[0].Key == "game/10.0.0.1:80", "an endpoint is deleted")
	_, err = client.Revoke(ctx, lease.ID)
	must(err)
	gone = <-updates
	expect(gone[0].Op == endpoints.Delete && gone[0].Key == "game/10.0.0.2:80", "its lease took the other")
}

func locking(ctx context.Context, client *clientv3.Client) {
	one, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	must(err)
	two, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	must(err)
	first, second := concurrency.NewMutex(one, "/go-lock"), concurrency.NewMutex(two, "/go-lock")
	must(first.Lock(ctx))
	expect(errors.Is(second.TryLock(ctx), concurrency.ErrLocked), "the mutex is held")
	must(one.Close())
	must(second.Lock(ctx))
	must(second.Unlock(ctx))
	must(two.Close())
}

func must(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func expect(held bool, what string) {
	if !held {
		log.Panicf("not so: %s", what)
	}
}

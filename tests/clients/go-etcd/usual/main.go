// The usual calls of Go's client of etcd, each with a line that says what came
// of it. Lines do not depend on the server: leases are numbered as they appear.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

var leases = map[clientv3.LeaseID]string{0: "-"}

func lease(id clientv3.LeaseID) string {
	if _, known := leases[id]; !known {
		leases[id] = fmt.Sprintf("L%d", len(leases))
	}
	return leases[id]
}

func say(what string, err error, more ...interface{}) {
	if err != nil {
		fmt.Printf("%s: error: %v\n", what, err)
		return
	}
	text := fmt.Sprintln(more...)
	for id, name := range leases {
		if id != 0 {
			text = strings.ReplaceAll(text, fmt.Sprintf("%x", int64(id)), name)
		}
	}
	fmt.Printf("%s: %s", what, text)
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 45*time.Second)
	defer cancel()
	// Who is asked for a name may give one; nobody checks it.
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{os.Args[1]},
		DialTimeout: 10 * time.Second,
		Username:    "root",
		Password:    "root",
		Context:     ctx,
	})
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()
	keys(ctx, client)
	watches(ctx, client)
	leasing(ctx, client)
	users(ctx, client)
	members(ctx, client)
	locks(ctx, client)
	elections(ctx, client)
	fmt.Println("done")
}

func keys(ctx context.Context, c *clientv3.Client) {
	put, err := c.Put(ctx, "/k/a", "1")
	say("put", err, put.Header.Revision, put.PrevKv)
	put, err = c.Put(ctx, "/k/a", "2", clientv3.WithPrevKV())
	say("put again", err, put.Header.Revision, put.PrevKv)
	for _, key := range []string{"b", "c", "d"} {
		_, err = c.Put(ctx, "/k/"+key, key)
		say("put "+key, err)
	}
	_, err = c.Put(ctx, "", "x")
	say("put nothing", err)
	_, err = c.Put(ctx, "/k/none", "", clientv3.WithIgnoreValue())
	say("put none", err)
	_, err = c.Put(ctx, "/k/big", strings.Repeat("x", 1600*1024))
	say("put much", err)
	get := func(what string, key string, options ...clientv3.OpOption) {
		got, err := c.Get(ctx, key, options...)
		if err != nil {
			say(what, err)
			return
		}
		say(what, nil, got.Header.Revision, got.Count, got.More, got.Kvs)
	}
	get("get", "/k/a")
	get("get none", "/k/none")
	get("get all", "/k/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	get("get two", "/k/", clientv3.WithPrefix(), clientv3.WithLimit(2), clientv3.WithSerializable())
	get("get keys", "/k/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	get("count", "/k/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	get("get first", "/k/", clientv3.WithFirstCreate()...)
	get("get old", "/k/a", clientv3.WithRev(2))
	get("get future", "/k/a", clientv3.WithRev(1000))
	get("get range", "/k/b", clientv3.WithRange("/k/d"), clientv3.WithMinModRev(5))
	txn, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("/k/a"), "=", "2"), clientv3.Compare(clientv3.Version("/k/z"), "=", 0)).
		Then(clientv3.OpPut("/k/z", "new"), clientv3.OpGet("/k/a"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete("/k/d")}, nil)).
		Else(clientv3.OpGet("/k/z")).
		Commit()
	say("txn", err, txn.Succeeded, txn.Header.Revision, txn.Responses)
	_, err = c.Txn(ctx).Then(clientv3.OpPut("/k/z", "1"), clientv3.OpPut("/k/z", "2")).Commit()
	say("txn twice", err)
	deleted, err := c.Delete(ctx, "/k/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	say("delete", err, deleted.Header.Revision, deleted.Deleted, deleted.PrevKvs)
	_, err = c.Compact(ctx, 5)
	say("compact", err)
	get("get compacted", "/k/a", clientv3.WithRev(3))
	_, err = c.Compact(ctx, 4)
	say("compact again", err)
	stm, err := concurrency.NewSTM(c, func(stm concurrency.STM) error {
		stm.Put("/k/stm", stm.Get("/k/stm")+"x")
		return nil
	})
	say("stm", err, stm.Succeeded)
}

func watches(ctx context.Context, c *clientv3.Client) {
	wctx, cancel := context.WithCancel(ctx)
	watch := c.Watch(wctx, "/w/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	puts := c.Watch(wctx, "/w/a", clientv3.WithFilterDelete(), clientv3.WithCreatedNotify())
	next := func(what string, from clientv3.WatchChan) {
		response := <-from
		events := []string{}
		for _, event := range response.Events {
			events = append(events, fmt.Sprint(event.Type, event.Kv, event.PrevKv, event.IsCreate()))
		}
		say(what, response.Err(), response.Created, response.Header.Revision, events)
	}
	next("watch", watch)
	next("watch puts", puts)
	_, _ = c.Put(ctx, "/w/a", "1")
	next("put seen", watch)
	next("put seen", puts)
	_, _ = c.Delete(ctx, "/w/a")
	next("delete seen", watch)
	_, _ = c.Put(ctx, "/w/a", "2")
	next("put seen", watch)
	next("put seen", puts)
	cancel()
	_, open := <-puts
	say("watch ended", nil, !open)
	late := <-c.Watch(ctx, "/w/", clientv3.WithPrefix(), clientv3.WithRev(2))
	say("late", nil, late.Err(), late.CompactRevision, late.Canceled)
}

func leasing(ctx context.Context, c *clientv3.Client) {
	granted, err := c.Grant(ctx, 60)
	say("grant", err, lease(granted.ID), granted.TTL)
	_, err = c.Put(ctx, "/l/a", "1", clientv3.WithLease(granted.ID))
	say("put leased", err)
	got, err := c.Get(ctx, "/l/a")
	say("get leased", err, lease(clientv3.LeaseID(got.Kvs[0].Lease)))
	once, err := c.KeepAliveOnce(ctx, granted.ID)
	say("renew", err, once.TTL)
	alive, err := c.KeepAlive(ctx, granted.ID)
	say("keep", err, (<-alive).TTL)
	standing, err := c.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	keys := []string{}
	for _, key := range standing.Keys {
		keys = append(keys, string(key))
	}
	say("standing", err, standing.GrantedTTL, standing.TTL > 50, keys)
	all, err := c.Leases(ctx)
	say("leases", err, len(all.Leases))
	_, err = c.Revoke(ctx, granted.ID)
	say("revoke", err)
	_, err = c.Revoke(ctx, granted.ID)
	say("revoke again", err)
	_, err = c.KeepAliveOnce(ctx, granted.ID)
	say("renew late", err)
	_, err = c.Put(ctx, "/l/a", "1", clientv3.WithLease(granted.ID))
	say("put late", err)
	standing, err = c.TimeToLive(ctx, granted.ID)
	say("standing late", err, standing.TTL)
	got, err = c.Get(ctx, "/l/a")
	say("gone", err, got.Count)
}

func users(ctx context.Context, c *clientv3.Client) {
	_, err := c.UserAdd(ctx, "joe", "secret")
	say("user add", err)
	_, err = c.UserAdd(ctx, "joe", "secret")
	say("user add again", err)
	_, err = c.RoleAdd(ctx, "reader")
	say("role add", err)
	_, err = c.RoleGrantPermission(ctx, "reader", "/k/", clientv3.GetPrefixRangeEnd("/k/"), clientv3.PermissionType(clientv3.PermRead))
	say("permit", err)
	_, err = c.UserGrantRole(ctx, "joe", "reader")
	say("grant role", err)
	user, err := c.UserGet(ctx, "joe")
	say("user", err, user.Roles)
	role, err := c.RoleGet(ctx, "reader")
	say("role", err, role.Perm)
	names, err := c.UserList(ctx)
	say("users", err, names.Users)
	roles, err := c.RoleList(ctx)
	say("roles", err, roles.Roles)
	_, err = c.UserGet(ctx, "eve")
	say("user none", err)
	_, err = c.AuthEnable(ctx)
	say("auth enable", err)
	_, err = c.UserDelete(ctx, "joe")
	say("user delete", err)
	_, err = c.RoleDelete(ctx, "reader")
	say("role delete", err)
}

func members(ctx context.Context, c *clientv3.Client) {
	say("sync", c.Sync(ctx), len(c.Endpoints()))
	members, err := c.MemberList(ctx)
	say("members", err, len(members.Members), len(members.Members[0].ClientURLs))
	status, err := c.Status(ctx, c.Endpoints()[0])
	say("status", err, status.Leader == members.Members[0].ID, status.Header.Revision, strings.HasPrefix(status.Version, "3."))
	alarms, err := c.AlarmList(ctx)
	say("alarms", err, len(alarms.Alarms))
	hash, err := c.HashKV(ctx, c.Endpoints()[0], 0)
	say("hash", err, hash.Hash != 0, hash.CompactRevision)
	_, err = c.Defragment(ctx, c.Endpoints()[0])
	say("defragment", err)
}

func locks(ctx context.Context, c *clientv3.Client) {
	one, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	say("session", err, lease(one.Lease()))
	two, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	say("session", err, lease(two.Lease()))
	first, second := concurrency.NewMutex(one, "/lock"), concurrency.NewMutex(two, "/lock")
	say("lock", first.Lock(ctx), first.Key())
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	say("busy", second.Lock(short))
	cancel()
	say("close", one.Close())
	say("passed on", second.Lock(ctx), second.Key())
	say("unlock", second.Unlock(ctx))
	say("close", two.Close())
}

func elections(ctx context.Context, c *clientv3.Client) {
	session, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	say("session", err, lease(session.Lease()))
	election := concurrency.NewElection(session, "/elect")
	_, err = election.Leader(ctx)
	say("no leader", err)
	say("campaign", election.Campaign(ctx, "one"), election.Key())
	octx, cancel := context.WithCancel(ctx)
	observed := election.Observe(octx)
	say("observed", nil, string((<-observed).Kvs[0].Value))
	say("proclaim", election.Proclaim(ctx, "two"))
	say("observed", nil, string((<-observed).Kvs[0].Value))
	leader, err := election.Leader(ctx)
	values := []string{}
	for _, kv := range leader.Kvs {
		values = append(values, string(kv.Value))
	}
	sort.Strings(values)
	say("leader", err, values)
	say("resign", election.Resign(ctx))
	cancel()
	say("close", session.Close())
}

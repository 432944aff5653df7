package main

import (
	"context"
	"errors"
	"log"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// registration is a key that is there for as long as its server is.
type registration struct {
	client *clientv3.Client
	key    string
	put    put
	ttl    time.Duration
}

// put writes the key under a lease.
type put func(context.Context, clientv3.LeaseID) error

const (
	// No request to etcd takes longer, and the next try waits as long.
	patience = 3 * time.Second
	pause    = time.Second
)

// hold keeps the key until ctx ends, then removes it. One lease is kept alive
// for as long as it lasts; a new one is asked for only when it is lost, as it is
// when etcd was away for longer than the TTL.
func (r registration) hold(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.holdOnce(ctx); ctx.Err() == nil {
			log.Printf("not registered: %v", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

// holdOnce registers, and returns when the registration is lost or ctx ends.
func (r registration) holdOnce(ctx context.Context) error {
	// Ends watch and keepalive with this attempt.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asking, done := context.WithTimeout(ctx, patience)
	defer done()
	lease, err := r.client.Grant(asking, int64(r.ttl.Seconds()))
	if err != nil {
		return err
	}
	defer r.leave(ctx, lease.ID)
	deleted := r.client.Watch(ctx, r.key, clientv3.WithFilterPut())
	if err := r.put(asking, lease.ID); err != nil {
		return err
	}
	alive, err := r.client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	log.Printf("registered: %s", r.key)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-alive:
			if !ok {
				return errors.New("the lease is lost")
			}
		case response, ok := <-deleted:
			if !ok || response.Canceled || len(response.Events) > 0 {
				return errors.New("the key is lost")
			}
		}
	}
}

// leave removes the key, whatever else has ended. A server that stops deletes
// it: that is a word, where a lease that is gone could be an accident. Its lease
// then ends by itself.
func (r registration) leave(ctx context.Context, lease clientv3.LeaseID) {
	asking, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if ctx.Err() != nil {
		_, err = r.client.Delete(asking, r.key)
	} else {
		_, err = r.client.Revoke(asking, lease)
	}
	if err != nil {
		log.Printf("not removed, it goes with its lease: %v", err)
	}
}

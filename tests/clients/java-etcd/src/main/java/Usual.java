import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Election;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Lease;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.auth.Permission;
import io.etcd.jetcd.election.LeaderResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * The usual calls of jetcd, each with a line that says what came of it. Lines do
 * not depend on the server: leases are numbered as they appear.
 */
public final class Usual {
    private static final List<Long> LEASES = new ArrayList<>();

    private Usual() {}

    public static void main(String[] args) throws Exception {
        Thread guard = new Thread(() -> {
            try {
                Thread.sleep(45_000);
            } catch (InterruptedException ignored) {
                return;
            }
            Runtime.getRuntime().halt(3);
        });
        guard.setDaemon(true);
        guard.start();
        try (Client client = Client.builder().endpoints(args[0]).build()) {
            keys(client);
            leases(client);
            locks(client);
            elections(client);
            users(client);
            members(client, args[0]);
        }
        try (Client client = Client.builder().endpoints(args[0])
                .user(bytes("root")).password(bytes("root")).build()) {
            see("user", () -> get(client.getKVClient().get(bytes("/j/b"))).getKvs().size());
        }
        System.out.println("done");
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    private static void keys(Client client) throws Exception {
        KV kv = client.getKVClient();
        BlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
        GetOption below = GetOption.newBuilder().isPrefix(true).build();
        see("put", () -> get(kv.put(bytes("/j/a"), bytes("1"))).getHeader().getRevision());
        WatchOption past = WatchOption.newBuilder().isPrefix(true).withRevision(2).withPrevKV(true).build();
        Watch.Watcher watcher = client.getWatchClient()
            .watch(bytes("/j/"), past, response -> events.addAll(response.getEvents()));
        PutOption previous = PutOption.newBuilder().withPrevKV().build();
        see("put prev", () -> text(get(kv.put(bytes("/j/a"), bytes("2"), previous)).getPrevKv()));
        see("put empty key", () -> get(kv.put(bytes(""), bytes("x"))));
        see("put much", () -> get(kv.put(bytes("/j/much"), bytes("x".repeat(1_700_000)))));
        see("get none", () -> get(kv.get(bytes("/j/none"))).getCount());
        see("put b", () -> get(kv.put(bytes("/j/b"), bytes("b"))).getHeader().getRevision());
        see("all", () -> texts(get(kv.get(bytes("/j/"), below)).getKvs()));
        see("limit", () -> get(kv.get(bytes("/j/"), GetOption.newBuilder().isPrefix(true).withLimit(1).build())).isMore());
        see("count", () -> get(kv.get(bytes("/j/"), GetOption.newBuilder().isPrefix(true).withCountOnly(true).build())).getCount());
        see("old", () -> texts(get(kv.get(bytes("/j/a"), GetOption.newBuilder().withRevision(2).build())).getKvs()));
        see("future", () -> get(kv.get(bytes("/j/a"), GetOption.newBuilder().withRevision(1000).build())));
        see("txn", () -> {
            var answer = get(kv.txn()
                .If(new Cmp(bytes("/j/a"), Cmp.Op.EQUAL, CmpTarget.value(bytes("2"))))
                .Then(Op.put(bytes("/j/c"), bytes("c"), PutOption.DEFAULT), Op.get(bytes("/j/a"), GetOption.DEFAULT))
                .Else(Op.get(bytes("/j/b"), GetOption.DEFAULT)).commit());
            return answer.isSucceeded() + " " + answer.getHeader().getRevision() + " "
                + texts(answer.getGetResponses().get(0).getKvs());
        });
        DeleteOption all = DeleteOption.newBuilder().withRange(bytes("/j/d")).withPrevKV(true).build();
        see("delete", () -> texts(get(kv.delete(bytes("/j/b"), all)).getPrevKvs()));
        List<String> seen = new ArrayList<>();
        for (int i = 0; i < 6; i++) {
            WatchEvent event = events.poll(20, TimeUnit.SECONDS);
            seen.add(event.getEventType() + " " + text(event.getKeyValue()) + " before " + event.getPrevKV().getValue());
        }
        watcher.close();
        System.out.println("seen: " + seen);
        see("compact", () -> get(kv.compact(4)).getHeader().getRevision());
        see("compacted", () -> get(kv.get(bytes("/j/a"), GetOption.newBuilder().withRevision(2).build())));
        CompletableFuture<String> late = new CompletableFuture<>();
        client.getWatchClient().watch(bytes("/j/"), WatchOption.newBuilder().withRevision(2).build(),
            Watch.listener(response -> {}, error -> late.complete(String.valueOf(error.getMessage()))));
        see("late", () -> get(late));
    }

    private static void leases(Client client) throws Exception {
        Lease leases = client.getLeaseClient();
        long id = get(leases.grant(60)).getID();
        see("grant", () -> lease(id));
        see("put", () -> get(client.getKVClient().put(bytes("/j/l"), bytes("1"),
            PutOption.newBuilder().withLeaseId(id).build())).getHeader().getRevision());
        see("get", () -> texts(get(client.getKVClient().get(bytes("/j/l"))).getKvs()));
        see("renew", () -> get(leases.keepAliveOnce(id)).getTTL());
        see("standing", () -> {
            var standing = get(leases.timeToLive(id, LeaseOption.newBuilder().withAttachedKeys().build()));
            return standing.getGrantedTTL() + " " + standing.getKeys();
        });
        see("revoke", () -> get(leases.revoke(id)).getHeader().getRevision());
        see("revoke again", () -> get(leases.revoke(id)));
        see("renew late", () -> get(leases.keepAliveOnce(id)).getTTL());
        see("gone", () -> get(client.getKVClient().get(bytes("/j/l"))).getCount());
    }

    private static void locks(Client client) throws Exception {
        long one = get(client.getLeaseClient().grant(60)).getID();
        long two = get(client.getLeaseClient().grant(60)).getID();
        lease(one);
        lease(two);
        ByteSequence held = get(client.getLockClient().lock(bytes("j-lock"), one)).getKey();
        see("lock", () -> named(held));
        var waiting = client.getLockClient().lock(bytes("j-lock"), two);
        see("busy", () -> {
            try {
                return waiting.get(300, TimeUnit.MILLISECONDS);
            } catch (TimeoutException expected) {
                return "it waits";
            }
        });
        see("unlock", () -> get(client.getLockClient().unlock(held)).getHeader().getRevision());
        see("passed on", () -> named(get(waiting).getKey()));
        see("no such lease", () -> get(client.getLockClient().lock(bytes("j-lock-2"), 4711)));
        get(client.getLeaseClient().revoke(one));
        get(client.getLeaseClient().revoke(two));
    }

    private static void elections(Client client) throws Exception {
        Election election = client.getElectionClient();
        long id = get(client.getLeaseClient().grant(60)).getID();
        lease(id);
        ByteSequence name = bytes("j-election");
        see("no leader", () -> get(election.leader(name)));
        var leader = get(election.campaign(name, id, bytes("me"))).getLeader();
        see("campaign", () -> leader.getRevision());
        see("leader", () -> text(get(election.leader(name)).getKv()));
        BlockingQueue<String> told = new LinkedBlockingQueue<>();
        election.observe(name, new Election.Listener() {
            @Override
            public void onNext(LeaderResponse response) {
                told.add(text(response.getKv()));
            }

            @Override
            public void onError(Throwable error) {}

            @Override
            public void onCompleted() {}
        });
        // On a busy machine jetcd may lose the first word, for it sets its handler
        // after the call has begun. So that one is waited for and not compared.
        String first = told.poll(3, TimeUnit.SECONDS);
        see("proclaim", () -> get(election.proclaim(leader, bytes("still me"))).getHeader().getRevision());
        see("observed", () -> {
            String word = told.poll(20, TimeUnit.SECONDS);
            boolean late = first == null && word != null && word.contains("=me ");
            return late ? told.poll(20, TimeUnit.SECONDS) : word;
        });
        see("resign", () -> get(election.resign(leader)).getHeader().getRevision());
        see("proclaim late", () -> get(election.proclaim(leader, bytes("late"))));
        get(client.getLeaseClient().revoke(id));
    }

    private static void users(Client client) {
        var auth = client.getAuthClient();
        see("user add", () -> get(auth.userAdd(bytes("joe"), bytes("secret"))) != null);
        see("user add again", () -> get(auth.userAdd(bytes("joe"), bytes("secret"))));
        see("role add", () -> get(auth.roleAdd(bytes("reader"))) != null);
        see("permit", () -> get(auth.roleGrantPermission(bytes("reader"), bytes("a"), bytes("b"), Permission.Type.READ)) != null);
        see("grant", () -> get(auth.userGrantRole(bytes("joe"), bytes("reader"))) != null);
        see("user", () -> get(auth.userGet(bytes("joe"))).getRoles());
        see("role", () -> get(auth.roleGet(bytes("reader"))).getPermissions().size());
        see("users", () -> get(auth.userList()).getUsers());
        see("roles", () -> get(auth.roleList()).getRoles());
        see("enable", () -> get(auth.authEnable()));
        see("role delete", () -> get(auth.roleDelete(bytes("reader"))) != null);
        see("user delete", () -> get(auth.userDelete(bytes("joe"))) != null);
    }

    private static void members(Client client, String url) {
        see("members", () -> get(client.getClusterClient().listMember()).getMembers().size());
        see("alarms", () -> get(client.getMaintenanceClient().listAlarms()).getAlarms().size());
    }

    private static void see(String what, Callable<Object> call) {
        try {
            System.out.println(what + ": " + call.call());
        } catch (Exception error) {
            Throwable cause = error;
            while (cause.getCause() != null && (cause instanceof ExecutionException || cause.getCause().getMessage() != null)) {
                cause = cause.getCause();
            }
            System.out.println(what + ": " + cause.getClass().getSimpleName() + " " + cause.getMessage());
        }
    }

    private static <T> T get(CompletableFuture<T> future) throws Exception {
        return future.get(20, TimeUnit.SECONDS);
    }

    private static ByteSequence bytes(String text) {
        return ByteSequence.from(text, StandardCharsets.UTF_8);
    }

    private static String lease(long id) {
        if (id == 0) {
            return "-";
        }
        if (!LEASES.contains(id)) {
            LEASES.add(id);
        }
        return "L" + LEASES.indexOf(id);
    }

    /** A key with a lease in it by its name here. */
    private static String named(ByteSequence key) {
        String text = key.toString(StandardCharsets.UTF_8);
        for (long id : LEASES) {
            text = text.replace(Long.toHexString(id), lease(id));
        }
        return text;
    }

    private static String text(KeyValue kv) {
        return named(kv.getKey()) + "=" + kv.getValue().toString(StandardCharsets.UTF_8) + " c" + kv.getCreateRevision()
            + " m" + kv.getModRevision() + " v" + kv.getVersion() + " " + lease(kv.getLease());
    }

    private static List<String> texts(List<KeyValue> kvs) {
        return kvs.stream().map(Usual::text).toList();
    }
}

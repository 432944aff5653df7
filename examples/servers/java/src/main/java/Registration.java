import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.PutOption;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Keeps one key in etcd for as long as this process lives, on a lease: a process that dies is
 * forgotten after {@link #TTL_SECONDS}. Lost, it is put there again; closed, it is deleted.
 */
final class Registration implements AutoCloseable {
  private static final long TTL_SECONDS = 10;

  private final Client etcd;
  private final ByteSequence key;
  private final ByteSequence value;
  private final CountDownLatch closing = new CountDownLatch(1);
  private final Thread thread = new Thread(this::hold, "registration");
  /** Zero while there is none, or while nobody knows. */
  private long lease;

  Registration(String url, String key, String value) {
    // An etcd that is away must not hold up the server's start: no call is made here.
    this.etcd = Client.builder().endpoints(url).build();
    this.key = ByteSequence.from(key, StandardCharsets.UTF_8);
    this.value = ByteSequence.from(value, StandardCharsets.UTF_8);
    thread.start();
  }

  /** Beats three times in the life of a lease. */
  private void hold() {
    try {
      do {
        try {
          if (lease != 0 && !alive()) {
            System.out.println("lost " + key + ", registering again");
            lease = 0;
          }
          if (lease == 0) {
            lease = register();
            System.out.println("registered " + key + " = " + value);
          }
        } catch (ExecutionException | TimeoutException error) {
          // etcd is away, or the lease is over: in both cases begin anew.
          System.out.println("not registered: " + error);
          lease = 0;
        }
      } while (!closing.await(lease == 0 ? 1 : TTL_SECONDS / 3, TimeUnit.SECONDS));
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    }
  }

  private long register() throws ExecutionException, InterruptedException, TimeoutException {
    long lease = soon(etcd.getLeaseClient().grant(TTL_SECONDS)).getID();
    soon(etcd.getKVClient().put(key, value, PutOption.builder().withLeaseId(lease).build()));
    return lease;
  }

  /** Renews the lease. False if it is over, or if someone deleted the key. */
  private boolean alive() throws ExecutionException, InterruptedException, TimeoutException {
    GetOption count = GetOption.builder().withCountOnly(true).build();
    return soon(etcd.getLeaseClient().keepAliveOnce(lease)).getTTL() > 0
        && soon(etcd.getKVClient().get(key, count)).getCount() > 0;
  }

  /** Deletes the key, if etcd can be reached. */
  @Override
  public void close() throws InterruptedException {
    closing.countDown();
    thread.join();
    try {
      if (lease != 0) {
        soon(etcd.getKVClient().delete(key));
        // Its lease ends by itself: one that is revoked looks like an accident.
        System.out.println("deregistered " + key);
      }
    } catch (ExecutionException | TimeoutException error) {
      System.out.println("not deregistered, the lease must end: " + error);
    } finally {
      etcd.close();
    }
  }

  /** jetcd tries for ever; a beat must not. */
  private static <T> T soon(CompletableFuture<T> reply)
      throws ExecutionException, InterruptedException, TimeoutException {
    try {
      return reply.get(TTL_SECONDS / 3, TimeUnit.SECONDS);
    } finally {
      reply.cancel(true);
    }
  }
}

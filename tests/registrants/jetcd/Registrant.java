import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.options.PutOption;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;

/** Registers a gRPC server with jetcd: an address under a key on a lease. */
public final class Registrant {
  public static void main(String[] args) throws Exception {
    String etcd = args[0];
    String service = args[1];
    String address = args[2];
    Client client = Client.builder().endpoints("http://" + etcd).build();
    long lease = client.getLeaseClient().grant(5).get().getID();
    client.getLeaseClient().keepAlive(lease, new Ignore());
    ByteSequence key = bytes("/etcd3_naming/" + service + "/1");
    PutOption onLease = PutOption.builder().withLeaseId(lease).build();
    client.getKVClient().put(key, bytes(address), onLease).get();
    System.out.println("registered");

    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line; (line = lines.readLine()) != null; ) {
      String[] words = line.split(" ");
      if (words[0].equals("update")) {
        client.getKVClient().put(key, bytes(words[1]), onLease).get();
      } else if (words[0].equals("stop")) {
        client.getLeaseClient().revoke(lease).get();
      }
    }
    client.close();
  }

  private static ByteSequence bytes(String text) {
    return ByteSequence.from(text, StandardCharsets.UTF_8);
  }

  private static final class Ignore implements StreamObserver<LeaseKeepAliveResponse> {
    @Override
    public void onNext(LeaseKeepAliveResponse response) {}

    @Override
    public void onError(Throwable error) {}

    @Override
    public void onCompleted() {}
  }
}

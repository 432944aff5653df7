import helloworld.GreeterGrpc;
import helloworld.GreeterOuterClass.HelloReply;
import helloworld.GreeterOuterClass.HelloRequest;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.concurrent.TimeUnit;

/** A plain gRPC server that keeps itself registered in etcd. */
final class GreeterServer {
  public static void main(String[] args) throws IOException, InterruptedException {
    if (args.length < 3 || args.length > 4) {
      System.err.println("usage: greeter-server ETCD_URL SERVICE HOST:PORT [ID]");
      System.exit(64);
    }
    String address = args[2];
    int colon = address.lastIndexOf(':');
    String host = address.substring(0, colon);
    String id = args.length > 3 ? args[3] : address;

    Server server =
        Grpc.newServerBuilderForPort(
                Integer.parseInt(address.substring(colon + 1)), InsecureServerCredentials.create())
            .addService(new Greeter(id))
            .build()
            .start();
    // Port 0 means any: what is registered is what it became.
    String reachable = host + ":" + server.getPort();
    System.out.println("listening on " + reachable);
    Registration registration =
        new Registration(args[0], "/etcd3_naming/" + args[1] + "/" + id, reachable);

    Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(registration, server)));
    server.awaitTermination();
  }

  /** First nobody new is sent here, then those who are here are served to the end. */
  private static void stop(Registration registration, Server server) {
    try {
      registration.close();
      server.shutdown().awaitTermination(10, TimeUnit.SECONDS);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    }
  }

  private static final class Greeter extends GreeterGrpc.GreeterImplBase {
    private final String id;

    Greeter(String id) {
      this.id = id;
    }

    @Override
    public void sayHello(HelloRequest request, StreamObserver<HelloReply> replies) {
      String message = "Hello " + request.getName() + " from " + id;
      replies.onNext(HelloReply.newBuilder().setMessage(message).build());
      replies.onCompleted();
    }
  }
}

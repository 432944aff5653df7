import helloworld.GreeterGrpc;
import helloworld.GreeterOuterClass.HelloRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.util.concurrent.TimeUnit;

/** A plain gRPC client. What it knows of the servers is one DNS name. */
final class GreeterClient {
  public static void main(String[] args) throws InterruptedException {
    if (args.length < 1 || args.length > 2) {
      System.err.println("usage: greeter-client dns:///NAME [CALLS]");
      System.exit(64);
    }
    long calls = args.length > 1 ? Long.parseLong(args[1]) : Long.MAX_VALUE;

    ManagedChannel channel =
        Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create())
            // All that a client needs for grpclb, with grpc-grpclb on its class path.
            .defaultLoadBalancingPolicy("grpclb")
            .build();
    GreeterGrpc.GreeterBlockingStub greeter = GreeterGrpc.newBlockingStub(channel);
    HelloRequest request = HelloRequest.newBuilder().setName("world").build();
    for (long made = 1; ; made++) {
      try {
        System.out.println(
            greeter.withDeadlineAfter(5, TimeUnit.SECONDS).sayHello(request).getMessage());
      } catch (StatusRuntimeException error) {
        System.out.println(
            error.getStatus().getCode() + ": " + error.getStatus().getDescription());
      }
      if (made == calls) {
        break;
      }
      Thread.sleep(1000);
    }
    channel.shutdownNow();
  }
}

import io.grpc.Grpc;
import io.grpc.HandlerRegistry;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerMethodDefinition;
import io.grpc.Status;
import io.grpc.services.MetricRecorder;
import io.grpc.xds.orca.OrcaServiceImpl;
import java.io.InputStream;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * A backend that reports its load as grpc-java's own ORCA service does.
 *
 * <p>Arguments: calls per second, and the utilisation of the application. It prints its
 * address, serves nothing but reports, and ends with its standard input. Any other call fails
 * with its address, so that a client's calls can be counted.
 */
final class OrcaBackend {
  public static void main(String[] args) throws Exception {
    MetricRecorder metrics = MetricRecorder.newInstance();
    metrics.setQpsMetric(Double.parseDouble(args[0]));
    metrics.setApplicationUtilizationMetric(Double.parseDouble(args[1]));
    var timer = Executors.newSingleThreadScheduledExecutor();
    var reports = OrcaServiceImpl.createService(timer, metrics, 1, TimeUnit.SECONDS);
    var others = new Refusal();
    Server server =
        Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
            .addService(reports)
            .fallbackHandlerRegistry(others)
            .build()
            .start();
    others.address = "127.0.0.1:" + server.getPort();
    System.out.println(others.address);
    while (System.in.read() >= 0) {}
    server.shutdownNow();
    timer.shutdownNow();
  }

  /** Fails every call, with the address of the server. */
  private static final class Refusal extends HandlerRegistry {
    private volatile String address = "";

    @Override
    public ServerMethodDefinition<?, ?> lookupMethod(String name, String authority) {
      MethodDescriptor<InputStream, InputStream> method =
          MethodDescriptor.<InputStream, InputStream>newBuilder()
              .setType(MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(name)
              .setRequestMarshaller(new Bytes())
              .setResponseMarshaller(new Bytes())
              .build();
      return ServerMethodDefinition.create(
          method,
          (call, headers) -> {
            call.close(Status.UNIMPLEMENTED.withDescription("from " + address), new Metadata());
            return new ServerCall.Listener<>() {};
          });
    }
  }

  /** Messages as they are. */
  private static final class Bytes implements MethodDescriptor.Marshaller<InputStream> {
    @Override
    public InputStream stream(InputStream value) {
      return value;
    }

    @Override
    public InputStream parse(InputStream stream) {
      return stream;
    }
  }
}

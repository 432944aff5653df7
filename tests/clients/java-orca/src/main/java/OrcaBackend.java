import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.services.MetricRecorder;
import io.grpc.xds.orca.OrcaServiceImpl;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * A backend that reports its load as grpc-java's own ORCA service does.
 *
 * <p>Arguments: calls per second, and the utilisation of the application. It prints its
 * address, serves nothing but reports, and ends with its standard input.
 */
final class OrcaBackend {
  public static void main(String[] args) throws Exception {
    MetricRecorder metrics = MetricRecorder.newInstance();
    metrics.setQpsMetric(Double.parseDouble(args[0]));
    metrics.setApplicationUtilizationMetric(Double.parseDouble(args[1]));
    var timer = Executors.newSingleThreadScheduledExecutor();
    var reports = OrcaServiceImpl.createService(timer, metrics, 1, TimeUnit.SECONDS);
    Server server =
        Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
            .addService(reports)
            .build()
            .start();
    System.out.println("127.0.0.1:" + server.getPort());
    while (System.in.read() >= 0) {}
    server.shutdownNow();
    timer.shutdownNow();
  }
}

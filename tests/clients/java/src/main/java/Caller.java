import com.google.gson.annotations.SerializedName;
import helloworld.GreeterGrpc;
import helloworld.GreeterOuterClass.HelloReply;
import helloworld.GreeterOuterClass.HelloRequest;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/** Makes calls on one channel, with connections of its own, and says what came of them. */
final class Caller {
  /** What is asked for; {@code count} is null for calls without end. */
  static final class Calls {
    Long count;
    double timeout;

    @SerializedName("wait_for_ready")
    boolean waitForReady;

    double every;
    String name;
    boolean details;
    Map<String, String> headers = Map.of();
  }

  /** What came of a number of calls. */
  static final class Report {
    final Map<String, Integer> answers = new TreeMap<>();
    final Map<String, Integer> errors = new TreeMap<>();
    /** Each call in its order, if that was asked for. */
    List<Map<String, Object>> calls;
  }

  private final ManagedChannel channel;
  private CountDownLatch stopping;
  private FutureTask<Report> background;

  Caller(ManagedChannel channel) {
    this.channel = channel;
  }

  Report call(Calls calls) throws InterruptedException {
    return call(calls, new CountDownLatch(1));
  }

  synchronized void start(Calls calls) {
    if (background != null) {
      throw new IllegalStateException("it is calling already");
    }
    CountDownLatch stop = new CountDownLatch(1);
    FutureTask<Report> task = new FutureTask<>(() -> call(calls, stop));
    Thread thread = new Thread(task);
    thread.setDaemon(true);
    thread.start();
    stopping = stop;
    background = task;
  }

  synchronized Report stop() throws Exception {
    if (background == null) {
      throw new IllegalStateException("it is not calling");
    }
    stopping.countDown();
    Report report = background.get();
    background = null;
    return report;
  }

  synchronized void close() {
    if (background != null) {
      stopping.countDown();
    }
    channel.shutdownNow();
  }

  /** Calls one after the other: as often as asked for, or until stopped. */
  private Report call(Calls calls, CountDownLatch stop) throws InterruptedException {
    Report report = new Report();
    if (calls.details) {
      report.calls = new ArrayList<>();
    }
    HelloRequest request = HelloRequest.newBuilder().setName(calls.name).build();
    for (long made = 0; calls.count == null || made < calls.count; made++) {
      long pause = made == 0 ? 0 : (long) (calls.every * 1e9);
      if (stop.await(pause, TimeUnit.NANOSECONDS)) {
        break;
      }
      one(calls, request, report);
    }
    return report;
  }

  private void one(Calls calls, HelloRequest request, Report report) {
    AtomicReference<Metadata> initial = new AtomicReference<>();
    AtomicReference<Metadata> trailing = new AtomicReference<>();
    Metadata headers = new Metadata();
    calls.headers.forEach(
        (key, value) ->
            headers.put(Metadata.Key.of(key, Metadata.ASCII_STRING_MARSHALLER), value));
    GreeterGrpc.GreeterBlockingStub greeter =
        GreeterGrpc.newBlockingStub(
                ClientInterceptors.intercept(
                    channel,
                    MetadataUtils.newAttachHeadersInterceptor(headers),
                    MetadataUtils.newCaptureMetadataInterceptor(initial, trailing)))
            .withDeadlineAfter((long) (calls.timeout * 1e9), TimeUnit.NANOSECONDS);
    String kind;
    String text;
    try {
      HelloReply reply = (calls.waitForReady ? greeter.withWaitForReady() : greeter).sayHello(request);
      kind = "answer";
      text = reply.getMessage();
      report.answers.merge(text, 1, Integer::sum);
    } catch (StatusRuntimeException error) {
      kind = "error";
      text = error.getStatus().getCode() + ": " + error.getStatus().getDescription();
      report.errors.merge(text, 1, Integer::sum);
    }
    if (report.calls != null) {
      Map<String, String> metadata = new TreeMap<>();
      keep(initial.get(), metadata);
      keep(trailing.get(), metadata);
      report.calls.add(Map.of(kind, text, "metadata", metadata));
    }
  }

  /** All but binary values. */
  private static void keep(Metadata from, Map<String, String> into) {
    if (from == null) {
      return;
    }
    for (String key : from.keys()) {
      if (!key.endsWith(Metadata.BINARY_HEADER_SUFFIX)) {
        into.put(key, from.get(Metadata.Key.of(key, Metadata.ASCII_STRING_MARSHALLER)));
      }
    }
  }
}

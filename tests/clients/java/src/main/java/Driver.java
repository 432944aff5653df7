import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.reflect.TypeToken;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.TlsChannelCredentials;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

/**
 * A real grpc-java client, steered over standard input by lines of JSON.
 *
 * <p>Each command is an object with "id", "do" and its arguments; each gets one line of JSON back
 * with the same "id" and either "ok" or "error". Commands run side by side, so a call that waits
 * holds up nothing.
 *
 * <pre>
 *   hello
 *   open   channel, target, config, idle_seconds, fallback_seconds, ca, options
 *   call   channel, count, timeout, wait_for_ready, every, name, details
 *   start  channel, timeout, wait_for_ready, every, name: calls until stop
 *   stop   channel: ends what start began, and reports it
 *   close  channel
 * </pre>
 *
 * The client is unmodified: nothing here knows of lookaside.
 */
final class Driver {
  private static final Gson GSON = new Gson();

  private final Map<JsonElement, Caller> callers = new ConcurrentHashMap<>();
  private final PrintStream out;

  private Driver(PrintStream out) {
    this.out = out;
  }

  public static void main(String[] args) throws IOException {
    Driver driver = new Driver(System.out);
    // Whatever a library prints is no reply.
    System.setOut(System.err);
    BufferedReader commands =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = commands.readLine()) != null; ) {
      JsonObject command = JsonParser.parseString(line).getAsJsonObject();
      String what = command.get("do").getAsString();
      if (what.equals("open") || what.equals("start")) {
        // At once and in order: what follows may rely on them.
        driver.answer(command);
      } else {
        Thread thread = new Thread(() -> driver.answer(command));
        thread.setDaemon(true);
        thread.start();
      }
    }
    // Calls that still wait would hold up the end.
    Runtime.getRuntime().halt(0);
  }

  private void answer(JsonObject command) {
    JsonObject reply = new JsonObject();
    reply.add("id", command.get("id"));
    try {
      reply.add("ok", GSON.toJsonTree(carryOut(command)));
    } catch (UnsupportedOperationException error) {
      reply.addProperty("error", "unsupported: " + error.getMessage());
    } catch (Exception error) { // the other side decides what it means
      reply.addProperty("error", error.toString());
    }
    synchronized (out) {
      out.println(reply);
      out.flush();
    }
  }

  private Object carryOut(JsonObject command) throws Exception {
    String what = command.get("do").getAsString();
    JsonElement channel = command.get("channel");
    switch (what) {
      case "hello":
        String version = ManagedChannel.class.getPackage().getImplementationVersion();
        return Map.of("version", "grpc-java " + version);
      case "open":
        callers.put(channel, new Caller(open(command)));
        return null;
      case "call":
        return callers.get(channel).call(GSON.fromJson(command, Caller.Calls.class));
      case "start":
        callers.get(channel).start(GSON.fromJson(command, Caller.Calls.class));
        return null;
      case "stop":
        return callers.get(channel).stop();
      case "close":
        callers.remove(channel).close();
        return null;
      default:
        throw new IllegalArgumentException("no such command: " + what);
    }
  }

  private static ManagedChannel open(JsonObject command) throws IOException {
    if (has(command, "options") && !command.getAsJsonArray("options").isEmpty()) {
      throw new UnsupportedOperationException("options: they are arguments of C-core's channels");
    }
    ChannelCredentials credentials =
        has(command, "ca")
            ? TlsChannelCredentials.newBuilder()
                .trustManager(new File(command.get("ca").getAsString()))
                .build()
            : InsecureChannelCredentials.create();
    ManagedChannelBuilder<?> builder =
        Grpc.newChannelBuilder(command.get("target").getAsString(), credentials);
    if (has(command, "idle_seconds")) {
      builder.idleTimeout((long) (command.get("idle_seconds").getAsDouble() * 1e3), TimeUnit.MILLISECONDS);
    }
    if (has(command, "config")) {
      Map<String, Object> config =
          GSON.fromJson(
              command.get("config").getAsString(), new TypeToken<Map<String, Object>>() {}.getType());
      if (has(command, "fallback_seconds")) {
        setFallback(config, command.get("fallback_seconds").getAsDouble());
      }
      // As if the driver had not switched DNS's on: that would win.
      builder.disableServiceConfigLookUp().defaultServiceConfig(config);
    } else if (has(command, "fallback_seconds")) {
      throw new UnsupportedOperationException(
          "fallback_seconds: part of the service config, which here is DNS's");
    }
    return builder.build();
  }

  /** Java takes the time from the policy's config. */
  @SuppressWarnings("unchecked")
  private static void setFallback(Map<String, Object> config, double seconds) {
    for (Object policy : (List<Object>) config.get("loadBalancingConfig")) {
      Object old = ((Map<String, Object>) policy).get("grpclb");
      if (old != null) {
        Map<String, Object> grpclb = new HashMap<>((Map<String, Object>) old);
        grpclb.put("initialFallbackTimeout", String.format("%.3fs", seconds));
        ((Map<String, Object>) policy).put("grpclb", grpclb);
      }
    }
  }

  private static boolean has(JsonObject command, String name) {
    return command.has(name) && !command.get(name).isJsonNull();
  }
}

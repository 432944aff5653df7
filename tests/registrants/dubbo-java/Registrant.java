import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.apache.dubbo.common.URL;
import org.apache.dubbo.common.extension.ExtensionLoader;
import org.apache.dubbo.registry.Registry;
import org.apache.dubbo.registry.RegistryFactory;

/** Registers a provider with Dubbo's etcd registry, as an exported service does. */
public final class Registrant {
  public static void main(String[] args) throws Exception {
    String etcd = args[0];
    String service = args[1];
    String address = args[2];
    RegistryFactory factory =
        ExtensionLoader.getExtensionLoader(RegistryFactory.class).getAdaptiveExtension();
    // Dubbo waits a minute for those that died, unless it is told otherwise.
    Registry registry = factory.getRegistry(URL.valueOf("etcd3://" + etcd + "?session=5000"));
    URL provider =
        URL.valueOf("grpc://" + address + "/" + service)
            .addParameter("application", "registrant")
            .addParameter("interface", service)
            .addParameter("side", "provider")
            .addParameter("version", "1.0.0")
            .addParameter("weight", 3)
            .addParameter("timestamp", System.currentTimeMillis());
    registry.register(provider);
    System.out.println("registered");

    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line; (line = lines.readLine()) != null; ) {
      if (line.startsWith("update ")) {
        // What a provider says is its key: another weight is another key.
        URL heavier = provider.addParameter("weight", 5);
        registry.register(heavier);
        registry.unregister(provider);
        provider = heavier;
      } else if (line.equals("stop")) {
        registry.unregister(provider);
      }
    }
    System.exit(0);
  }
}

// A plain gRPC client. What it knows of the servers is one DNS name.
//
//     greeter_client dns:///hello.lookaside.internal [CALLS]

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <thread>

#include <grpcpp/grpcpp.h>

#include "helloworld/greeter.grpc.pb.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "dns:///NAME, or dns://IP:PORT/NAME to ask that DNS server; then calls to make\n";
    return 64;
  }
  const int count = argc > 2 ? std::atoi(argv[2]) : 0;  // 0 = no end

  // All that a client needs for grpclb: look up SRV records, use what they say.
  grpc::ChannelArguments arguments;
  arguments.SetInt("grpc.dns_enable_srv_queries", 1);
  arguments.SetServiceConfigJSON(R"({"loadBalancingConfig":[{"grpclb":{}}]})");
  auto channel =
      grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), arguments);
  auto greeter = helloworld::Greeter::NewStub(channel);

  helloworld::HelloRequest request;
  request.set_name("world");
  for (int made = 1;; ++made) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    helloworld::HelloReply reply;
    const grpc::Status status = greeter->SayHello(&context, request, &reply);
    if (status.ok()) {
      std::cout << reply.message() << std::endl;
    } else {
      std::cout << "error " << status.error_code() << ": " << status.error_message() << std::endl;
    }
    if (made == count) return 0;
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

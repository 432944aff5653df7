// A backend with C++'s own health server, and a greeter that implements nothing.
//
// It prints its address. Each line of standard input is its state from then on: SERVING, or
// any other word. It ends with its standard input.
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <iostream>
#include <string>

#include "helloworld/greeter.grpc.pb.h"

int main() {
  grpc::EnableDefaultHealthCheckService(true);
  helloworld::Greeter::Service greeter;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&greeter);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return 1;
  std::cout << "127.0.0.1:" << port << std::endl;
  std::string state;
  while (std::getline(std::cin, state)) {
    server->GetHealthCheckService()->SetServingStatus("", state == "SERVING");
  }
}

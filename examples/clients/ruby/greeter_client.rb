# A plain gRPC client. What it knows of the servers is one DNS name.
#
#     ruby -I build greeter_client.rb dns:///hello.lookaside.internal [CALLS]

require "grpc"
require "helloworld/greeter_services_pb"

target, count = ARGV
abort "dns:///NAME, or dns://IP:PORT/NAME to ask that DNS server; then calls to make" unless target

# All that a client needs for grpclb: look up SRV records, and use what they say.
OPTIONS = {
  "grpc.dns_enable_srv_queries" => 1,
  "grpc.service_config" => '{"loadBalancingConfig":[{"grpclb":{}}]}'
}.freeze

greeter = Helloworld::Greeter::Stub.new(target, :this_channel_is_insecure, channel_args: OPTIONS)
request = Helloworld::HelloRequest.new(name: "world")
$stdout.sync = true

(count ? 1..count.to_i : 1..).each do |number|
  sleep 1 if number > 1
  puts greeter.say_hello(request, deadline: Time.now + 5).message
rescue GRPC::BadStatus => e
  puts e.message
rescue Interrupt
  exit
end

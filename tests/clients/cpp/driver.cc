// A real grpc++ client, steered over standard input by lines of JSON: the
// protocol of tests/clients/python/driver.py. The client is unmodified:
// nothing here knows of lookaside.

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>

#include <grpcpp/grpcpp.h>
#include <nlohmann/json.hpp>

#include "helloworld/greeter.grpc.pb.h"

using json = nlohmann::json;
using Seconds = std::chrono::duration<double>;

std::string code_name(grpc::StatusCode code) {
  static const char* const kNames[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
      "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
      "UNAUTHENTICATED"};
  return code >= 0 && code < 17 ? kNames[code] : "CODE_" + std::to_string(code);
}

// What came of a number of calls.
class Report {
 public:
  explicit Report(bool details) : details_(details) {}

  void Add(const grpc::Status& status, const std::string& answer, const grpc::ClientContext& call) {
    const char* kind = status.ok() ? "answer" : "error";
    const std::string text =
        status.ok() ? answer : code_name(status.error_code()) + ": " + status.error_message();
    (status.ok() ? answers_ : errors_)[text] += 1;
    if (!details_) return;
    json metadata = json::object();
    for (const auto* pairs :
         {&call.GetServerInitialMetadata(), &call.GetServerTrailingMetadata()}) {
      for (const auto& [name, value] : *pairs) {
        const std::string key(name.data(), name.size());
        if (key.size() >= 4 && key.compare(key.size() - 4, 4, "-bin") == 0) continue;
        metadata[key] = std::string(value.data(), value.size());
      }
    }
    calls_.push_back({{kind, text}, {"metadata", metadata}});
  }

  json AsJson() const {
    json report = {{"answers", answers_}, {"errors", errors_}};
    if (details_) report["calls"] = calls_;
    return report;
  }

 private:
  const bool details_;
  std::map<std::string, int> answers_, errors_;
  json calls_ = json::array();
};

// One channel, with connections of its own.
class Channel {
 public:
  explicit Channel(const json& command) {
    grpc::ChannelArguments arguments;
    arguments.SetInt("grpc.use_local_subchannel_pool", 1);
    arguments.SetInt("grpc.dns_enable_srv_queries", 1);
    const json config = command.value("config", json());
    if (config.is_null()) {
      arguments.SetInt("grpc.service_config_disable_resolution", 0);
    } else {
      arguments.SetServiceConfigJSON(config.get<std::string>());
    }
    auto milliseconds = [&](const char* field, const char* argument) {
      const json seconds = command.value(field, json());
      if (!seconds.is_null()) arguments.SetInt(argument, static_cast<int>(seconds.get<double>() * 1000));
    };
    milliseconds("idle_seconds", "grpc.client_idle_timeout_ms");
    milliseconds("fallback_seconds", "grpc.grpclb_fallback_timeout_ms");
    for (const json& option : command.value("options", json::array())) {
      const auto name = option.at(0).get<std::string>();
      if (option.at(1).is_string()) {
        arguments.SetString(name, option.at(1).get<std::string>());
      } else {
        arguments.SetInt(name, option.at(1).get<int>());
      }
    }
    const json ca = command.value("ca", json());
    greeter_ = helloworld::Greeter::NewStub(grpc::CreateCustomChannel(
        command.at("target").get<std::string>(),
        ca.is_null() ? grpc::InsecureChannelCredentials() : Trusting(ca.get<std::string>()),
        arguments));
  }

  ~Channel() { Close(); }

  // Calls one after the other, as many as the command says; until stopped
  // when it does not say.
  json Call(const json& command) {
    Report report(command.value("details", false));
    helloworld::HelloRequest request;
    request.set_name(command.at("name").get<std::string>());
    const long count = command.value("count", -1L);
    const Seconds every(command.value("every", 0.0));
    const json headers = command.value("headers", json::object());
    for (long made = 0; made != count && !(count < 0 && stopping_); ++made) {
      if (made > 0 && every.count() > 0) Sleep(every, count < 0);
      grpc::ClientContext context;
      context.set_wait_for_ready(command.value("wait_for_ready", false));
      context.set_deadline(std::chrono::system_clock::now() +
                           std::chrono::duration_cast<std::chrono::milliseconds>(
                               Seconds(command.at("timeout").get<double>())));
      for (const auto& [name, value] : headers.items()) {
        context.AddMetadata(name, value.get<std::string>());
      }
      helloworld::HelloReply reply;
      if (!Begin(&context)) break;
      const grpc::Status status = greeter_->SayHello(&context, request, &reply);
      End(&context);
      report.Add(status, reply.message(), context);
    }
    return report.AsJson();
  }

  void Start(json command) {
    if (background_.joinable()) throw std::runtime_error("it is calling already");
    stopping_ = false;
    command["count"] = -1;
    background_ = std::thread([this, command] { background_report_ = Call(command); });
  }

  json Stop() {
    if (!background_.joinable()) throw std::runtime_error("it is not calling");
    StopCalling();
    background_.join();
    return background_report_;
  }

  // Ends every call.
  void Close() {
    StopCalling();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
      for (auto* context : calls_) context->TryCancel();
    }
    if (background_.joinable()) background_.join();
  }

 private:
  static std::shared_ptr<grpc::ChannelCredentials> Trusting(const std::string& path) {
    std::ostringstream pem;
    pem << std::ifstream(path).rdbuf();
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = pem.str();
    return grpc::SslCredentials(options);
  }

  bool Begin(grpc::ClientContext* context) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_) calls_.insert(context);
    return !closed_;
  }

  void End(grpc::ClientContext* context) {
    std::lock_guard<std::mutex> lock(mutex_);
    calls_.erase(context);
  }

  void Sleep(Seconds time, bool until_stopped) {
    std::unique_lock<std::mutex> lock(mutex_);
    stopped_.wait_for(lock, time, [&] { return closed_ || (until_stopped && stopping_); });
  }

  void StopCalling() {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    stopped_.notify_all();
  }

  std::unique_ptr<helloworld::Greeter::Stub> greeter_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  std::set<grpc::ClientContext*> calls_;
  bool closed_ = false;
  std::atomic<bool> stopping_{false};
  std::thread background_;
  json background_report_;
};

// Carries out commands.
class Driver {
 public:
  void Run() {
    for (std::string line; std::getline(std::cin, line);) {
      json command = json::parse(line);
      const std::string what = command.at("do");
      if (what == "open" || what == "start" || what == "hello") {
        // At once and in order: what follows may rely on them.
        Answer(command);
      } else {
        std::thread([this, command] { Answer(command); }).detach();
      }
    }
  }

 private:
  void Answer(const json& command) {
    json reply = {{"id", command.at("id")}};
    try {
      reply["ok"] = CarryOut(command);
    } catch (const std::exception& error) {  // the other side decides what it means
      reply["error"] = error.what();
    }
    // Text of a server's need not be UTF-8.
    const std::string line = reply.dump(-1, ' ', false, json::error_handler_t::replace);
    std::lock_guard<std::mutex> lock(mutex_);
    std::cout << line << std::endl;
  }

  json CarryOut(const json& command) {
    const std::string what = command.at("do");
    if (what == "hello") return {{"version", "grpc-c++ " + grpc::Version()}};
    const std::string name = command.at("channel").dump();
    if (what == "open") {
      auto channel = std::make_shared<Channel>(command);
      std::lock_guard<std::mutex> lock(mutex_);
      channels_[name] = std::move(channel);
      return nullptr;
    }
    std::shared_ptr<Channel> channel;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      channel = channels_.at(name);
      if (what == "close") channels_.erase(name);
    }
    if (what == "call") return channel->Call(command);
    if (what == "stop") return channel->Stop();
    if (what == "start") {
      channel->Start(command);
    } else if (what == "close") {
      channel->Close();
    } else {
      throw std::runtime_error("no such command: " + what);
    }
    return nullptr;
  }

  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Channel>> channels_;
};

int main() {
  Driver driver;
  driver.Run();
  // Calls that still wait would hold up the process's end.
  _exit(0);
}

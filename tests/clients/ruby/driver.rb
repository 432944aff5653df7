# A real grpc-ruby client, steered over standard input by lines of JSON: the
# protocol of tests/clients/python/driver.py. The client is unmodified:
# nothing here knows of lookaside.
#
# Ruby has no wait-for-ready of a call's own: a service config says it for all
# calls of a channel. So calls that wait go over a second channel, opened with
# the first of them, whose config is the given one and says so in addition.
# Where the config is left to DNS there is nothing to add to.

require "json"
require "grpc"
require "helloworld/greeter_services_pb"

class Unsupported < StandardError
  def initialize(what, why)
    super("unsupported: #{what}: #{why}")
  end
end

CODES = GRPC::Core::StatusCodes.constants.to_h { |name| [GRPC::Core::StatusCodes.const_get(name), name] }

# What came of a number of calls.
class Report
  def initialize(details)
    @answers = Hash.new(0)
    @errors = Hash.new(0)
    @calls = details ? [] : nil
  end

  def answer(text, metadata)
    @answers[text] += 1
    @calls&.push({ answer: text, metadata: readable(metadata) })
  end

  def error(text, metadata)
    @errors[text] += 1
    @calls&.push({ error: text, metadata: readable(metadata) })
  end

  def as_json
    report = { answers: @answers, errors: @errors }
    @calls ? report.merge(calls: @calls) : report
  end

  private

  def readable(metadata)
    pairs = (metadata || {}).reject { |name, _| name.end_with?("-bin") }
    pairs.transform_values { |value| Array(value).last.to_s.scrub }
  end
end

# One connection to a target: a core channel and its stub.
class Line
  def initialize(target, credentials, arguments)
    @channel = GRPC::ClientStub.setup_channel(nil, target, credentials, arguments)
    @stub = Helloworld::Greeter::Stub.new(target, credentials, channel_override: @channel)
  end

  def say_hello(name, timeout, report)
    request = Helloworld::HelloRequest.new(name: name)
    call = @stub.say_hello(request, deadline: Time.now + timeout, return_op: true)
    reply = call.execute
    report.answer(reply.message, (call.metadata || {}).merge(call.trailing_metadata || {}))
  rescue GRPC::BadStatus => e
    report.error("#{CODES[e.code]}: #{e.details}".scrub, e.metadata)
  end

  def close
    @channel.close
  end
end

# What others call a channel.
class Channel
  def initialize(target:, config: nil, idle_seconds: nil, fallback_seconds: nil, ca: nil, options: [])
    @target = target
    @config = config
    @credentials = ca ? GRPC::Core::ChannelCredentials.new(File.read(ca)) : :this_channel_is_insecure
    @arguments = { "grpc.use_local_subchannel_pool" => 1, "grpc.dns_enable_srv_queries" => 1 }
    @arguments["grpc.client_idle_timeout_ms"] = (idle_seconds * 1000).to_i if idle_seconds
    @arguments["grpc.grpclb_fallback_timeout_ms"] = (fallback_seconds * 1000).to_i if fallback_seconds
    @arguments.merge!(options.to_h)
    @lock = Mutex.new
    @plain = config ? line("grpc.service_config" => config) : line("grpc.service_config_disable_resolution" => 0)
  end

  def call(timeout:, name:, count: -1, wait_for_ready: false, every: 0, details: false)
    report = Report.new(details)
    line = wait_for_ready ? waiting : @plain
    made = 0
    until made == count || (count.negative? && @stopping)
      sleep(every) if made.positive? && every.positive?
      made += 1
      line.say_hello(name, timeout, report)
    end
    report.as_json
  end

  def start(**arguments)
    raise "it is calling already" if @background

    @stopping = false
    @background = Thread.new { call(**arguments, count: -1) }
    nil
  end

  def stop
    raise "it is not calling" unless @background

    @stopping = true
    report = @background.value
    @background = nil
    report
  end

  def close
    @stopping = true
    [@plain, @waiting].compact.each(&:close)
    nil
  end

  private

  def line(arguments)
    Line.new(@target, @credentials, @arguments.merge(arguments))
  end

  def waiting
    raise Unsupported.new("wait_for_ready", "Ruby takes it from the service config, which DNS gives here") unless @config

    method = { "name" => [{}], "waitForReady" => true }
    config = JSON.parse(@config).merge("methodConfig" => [method])
    @lock.synchronize { @waiting ||= line("grpc.service_config" => JSON.generate(config)) }
  end
end

# Carries out commands.
class Driver
  def initialize
    @lock = Mutex.new
    @channels = {}
  end

  def run
    $stdin.each_line do |text|
      command = JSON.parse(text, symbolize_names: true)
      if %w[open start hello].include?(command[:do])
        # At once and in order: what follows may rely on them.
        answer(command)
      else
        Thread.new { answer(command) }
      end
    end
  end

  private

  def answer(command)
    id = command.delete(:id)
    reply = begin
      { id: id, ok: carry_out(**command) }
    rescue Unsupported => e
      { id: id, error: e.message }
    rescue StandardError => e # the other side decides what it means
      { id: id, error: "#{e.class}: #{e.message}" }
    end
    @lock.synchronize do
      $stdout.puts(JSON.generate(reply))
      $stdout.flush
    end
  end

  def carry_out(do:, channel: nil, **arguments)
    what = binding.local_variable_get(:do)
    case what
    when "hello" then { version: "grpc-ruby #{GRPC::VERSION}" }
    when "open" then @channels[channel] = Channel.new(**arguments) and nil
    when "close" then @channels.delete(channel).close
    when "call", "start", "stop" then @channels.fetch(channel).public_send(what, **arguments)
    else raise "no such command: #{what}"
    end
  end
end

Driver.new.run
# Calls that still wait would hold up the interpreter's end.
exit!(0)

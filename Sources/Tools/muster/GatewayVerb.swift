import Basics
import Gateway
import Glibc
import Observability
import StackFile
import StackModel

let gatewayVerb = Verb(
    name: "gateway", summary: "run the gateway alone, for containers and ingress",
    help: """
        usage: muster gateway FILE

        Runs the gateway that FILE describes, in the foreground. Signals:
          SIGHUP            reads the file again, without losing a connection
          SIGUSR2           starts the program anew (a new version, say) with this one's listening sockets; when it
                            serves, this one drains and ends: no connection is lost. When it cannot start, this one goes
                            on
          SIGQUIT           drains gently: idle clients may ask once more
          SIGTERM, SIGINT   drains and stops

        example:
          cat > gateway.yaml <<'END'
          gateway:
            listen: 127.0.0.1:8010
            admin: 127.0.0.1:8404
            routes:
              - path: /
                balance: least-connections
                backends: [127.0.0.1:9001, 127.0.0.1:9002]
          END
          muster gateway gateway.yaml
        """
) { arguments in
    try arguments.atMost(1, "one file")
    guard let file = arguments.positional.first else { throw Exit.usage("which file?") }
    let logger = Logger(level: .info, format: environmentValue("LOG_FORMAT") == "json" ? .json : .text, descriptor: 2, immediate: true)
    let gateway = StandaloneGateway(file: file, successor: ["gateway", file], logger: logger) { () throws(StandaloneGateway.Failure) in
        do throws(Exit) { return try readStack(file).gateway } catch { throw .wrongFile(error.message) }
    }
    do { try gateway.run() } catch let failure as StandaloneGateway.Failure {
        switch failure {
        case .wrongFile(let message): throw Exit.usage(message)
        case .failed(let message): throw Exit.failed(message)
        }
    }
}

/// Reads a stack file; what is wrong with it becomes status 2.
func readStack(
    _ path: String, isStarting: Bool = false, environment: @escaping (String) -> String? = environmentValue
) throws(Exit) -> Stack {
    let text: [UInt8]
    do throws(SystemError) { text = try Files.read(path, limit: Stack.sizeLimit) } catch { throw .usage("\(error)") }
    do throws(Problems) {
        return try Stack.read(text, path: path, files: .onDisk(isStarting: isStarting), environment: environment)
    } catch {
        throw .usage("the file is wrong:\n\(error)")
    }
}

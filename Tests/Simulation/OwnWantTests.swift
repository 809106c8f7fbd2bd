import Basics
import Glibc
import Redis
import StackModel
import StoreKinds
import Synchronization
import TestSupport
import Testing

@testable import EventLoops
@testable import HTTP
@testable import MemcachedStores
@testable import RedisStores
@testable import Supervision

/// What fails for want of something here (descriptors, processes) says nothing of the one that was asked.
@Suite struct OwnWantTests {
    typealias Probe = ReplicaMachine.Probe

    private static func error(_ code: HTTPClientError.Code, _ text: String, isOwnWant: Bool = false) -> HTTPClientError {
        HTTPClientError(code: code, retry: .nothingSent, place: "p", underlying: text, isOwnWant: isOwnWant, systemCode: 0)
    }

    /// Asks with the answers that each path gets.
    private func ask(_ answers: [String: HTTPClientError]) async -> Probe {
        let http = HTTPInterface(port: 80, live: "/live", ready: "/ready", metrics: nil)
        return await HTTPProbe(http, at: .address(.loopback(port: 80))) { path, _ async throws(HTTPClientError) in
            if let error = answers[path] { throw error }
            return HTTPClientResponse(status: 200, headers: [], body: [], isCut: false)
        }.ask()
    }

    @Test func anHTTPProbeKnowsWhoseFaultItWas() async {
        let want = Self.error(.connect, "socket: Too many open files", isOwnWant: true), late = Self.error(.timeout, "late")
        #expect(await ask([:]) == .ready)
        #expect(await ask(["/ready": want]) == .unasked("GET /ready on 127.0.0.1:80: socket: Too many open files"))
        // Also where the connection ended under the question.
        guard case .unasked = await ask(["/ready": Self.error(.lost, "x", isOwnWant: true)]) else {
            Issue.record("lost for want of buffers")
            return
        }
        #expect(await ask(["/ready": Self.error(.lost, "x")]) == .unready("GET /ready on 127.0.0.1:80: x"))
        #expect(await ask(["/ready": Self.error(.connect, "refused")]) == .failed("GET /ready on 127.0.0.1:80: refused"))
        // The second question, whether it lives.
        #expect(await ask(["/ready": late]) == .unready("GET /ready on 127.0.0.1:80: late, while /live is answered"))
        #expect(await ask(["/ready": late, "/live": late]) == .failed("GET /ready on 127.0.0.1:80: late"))
        guard case .unasked = await ask(["/ready": late, "/live": want]) else {
            Issue.record("the second question")
            return
        }
    }

    private static func check(_ command: CommandLine? = CommandLine(words: ["sleep", "1000"])) -> CheckSpec {
        CheckSpec(command: command, port: nil, interval: .seconds(1), timeout: .seconds(30))
    }

    @Test(arguments: [
        (SystemError("start /bin/check", EAGAIN), true), (SystemError("start /bin/check", EMFILE), true),
        (SystemError("start /bin/check", ENOENT), false),
    ]) func aCheckThatCannotBeStartedForOurWantIsNotAsked(error: SystemError, isOwnWant: Bool) async throws {
        let result = try await withLoop { loop in
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Probe, Never>) in
                loop.execute {
                    CheckRun(Self.check(), port: 1, program: { throw error }, loop: loop) { continuation.resume(returning: $0) }.start()
                }
            }
        }
        let words = "the check could not be started: \(error)"
        #expect(result == (isOwnWant ? .unasked(words) : .unready(words)))
    }

    /// A disk that does not answer holds even a process that was sent SIGKILL; the control loop does not wait for it.
    @Test func cancellingACheckWaitsForNoEnd() async throws {
        let (reaped, pid) = try await withLoop { loop in
            await withUnsafeContinuation { (continuation: UnsafeContinuation<([Int32], Int32), Never>) in
                loop.execute {
                    let asked = Mutex<[Int32]>([])
                    let run = CheckRun(
                        Self.check(), port: 1,
                        program: {
                            Program(path: "/bin/sleep", arguments: ["1000"], environment: .inherited, folder: "/", input: [])
                        }, loop: loop,
                        reap: { pid, _ in
                            asked.withLock { $0.append(pid) }
                            return 0
                        }
                    ) { _ in }
                    run.start()
                    run.cancel()
                    continuation.resume(returning: (asked.withLock { $0 }, run.pid))
                }
            }
        }
        #expect(reaped.count == 1 && pid == 0)
        // It was killed all the same.
        var status: Int32 = 0
        for child in reaped where child > 1 { #expect(waitpid(child, &status, 0) == child && status & 0x7f == SIGKILL) }
    }

    /// Of several servers only those count that could be asked.
    @Test func aMemcachedThatCouldNotBeAskedCountsForNothing() async throws {
        let answers = try await withLoop { loop in
            try await loop.run {
                let probe = MemcachedProbe([.address(.loopback(port: 1)), .address(.loopback(port: 2))], loop: loop)
                let fine = MemcachedConnection.Answer.statistics(["pid": "1"])
                return [
                    [fine, fine], [fine, .unasked("w")], [.silence("s"), .unasked("w")], [.unasked("w"), .unasked("w")],
                    [fine, .silence("s")], [.silence("s"), .silence("s")], [.error("e"), .unasked("w")],
                ].map { (list: [MemcachedConnection.Answer]) in probe.judge(list) }
            }
        }
        let one = "stats on 127.0.0.1:1: ", two = "stats on 127.0.0.1:2: "
        #expect(
            answers == [
                .ready, .ready, .unasked("\(two)w; \(one)s"), .unasked("\(one)w; \(two)w"), .degraded("\(two)s"),
                .failed("\(one)s; \(two)s"), .unasked("\(two)w; stats on 127.0.0.1:1 was answered with: e"),
            ])
    }

    /// In a process of its own, which has no descriptor left.
    @Test func withoutDescriptorsNothingIsSaidOfAnyServer() async {
        await #expect(processExitsWith: .success) {
            guard let loop = try? EventLoop.start(name: "test"), let url = try? RedisURL("redis://127.0.0.1:1") else { exit(2) }
            guard (try? isFreePort(1)) == true, case .silence = await Self.firstWords(loop) else { exit(3) }
            var limit = rlimit(rlim_cur: 64, rlim_max: 64)
            guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { exit(4) }
            while open("/dev/null", O_RDONLY) >= 0 {}
            // Neither free nor taken.
            do throws(SystemError) {
                _ = try isFreePort(1)
                exit(5)
            } catch { guard error.isOwnWant else { exit(6) } }
            do throws(SystemError) {
                _ = try KeptPort.choose()
                exit(7)
            } catch { guard error.isOwnWant else { exit(8) } }
            guard case .unasked = await Self.firstWords(loop) else { exit(9) }
            let external = await Task(executorPreference: loop) { await RedisProbe(url, loop: loop).ask().answer }.value
            guard case .unasked = external else { exit(10) }
            let node = await Task(executorPreference: loop) {
                await RedisProbe(url, port: 1, isCluster: false, loop: loop).ask().answer
            }.value
            guard case .unasked = node else { exit(11) }
            let memcached = await Task(executorPreference: loop) {
                await MemcachedProbe([.address(.loopback(port: 1))], loop: loop).ask().answer
            }.value
            guard case .unasked = memcached else { exit(12) }
            let check = await withUnsafeContinuation { (continuation: UnsafeContinuation<Probe, Never>) in
                loop.execute {
                    // Nobody else holds it: its own answer does, until it is given.
                    let held = Held()
                    held.run = CheckRun(Self.check(nil), port: 1, program: { throw SystemError("none", 0) }, loop: loop) {
                        held.run = nil
                        continuation.resume(returning: $0)
                    }
                    held.run?.start()
                }
            }
            guard case .unasked = check else { exit(13) }
            // A program is not started without its input.
            let program = Program(path: "/bin/true", arguments: [], environment: .inherited, folder: "/", input: [])
            do throws(SystemError) {
                _ = try program.start(output: 1, errors: 2)
                exit(14)
            } catch { guard error.isWantAtStart else { exit(15) } }
            exit(0)
        }
    }

    private final class Held { var run: CheckRun? }

    private static func firstWords(_ loop: EventLoop) async -> FirstWords.Answer {
        await withUnsafeContinuation { continuation in
            loop.execute { FirstWords.ask(port: 1, within: .seconds(5), on: loop) { continuation.resume(returning: $0) } }
        }
    }

    /// Only a listener takes a port; one that this user may not have is not judged. In a process of its own, which gives up being root.
    @Test func aPortIsTakenByAListenerOnly() async {
        await #expect(processExitsWith: .success) {
            let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            var storage = sockaddr_storage(), length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            guard SocketAddress.loopback(port: 0).withSockaddr({ bind(fd, $0, $1) }) == 0, listen(fd, 1) == 0 else { exit(2) }
            _ = withUnsafeMutablePointer(to: &storage) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &length) }
            }
            guard let port = SocketAddress(storage)?.port, (try? isFreePort(port)) == false else { exit(3) }
            close(fd)
            guard (try? isFreePort(port)) == true else { exit(4) }
            if geteuid() == 0 { guard setgid(65_534) == 0, setuid(65_534) == 0 else { exit(5) } }
            guard (try? isFreePort(1)) == true else { exit(6) }
            exit(0)
        }
    }
}

import Basics
import Glibc
import TestSupport
import Testing

@testable import EventLoops

/// TLS on a stream against OpenSSL's own server: order, pauses, back-pressure, ends, new keys.
@Suite struct TLSStreamTests {
    /// Keeps what it is told.
    final class Talker: Stream {
        var got: [UInt8] = []
        var events: [String] = []
        var reason: CloseReason?
        /// Pauses in `connected`, and at each piece; goes on when the loop has done something else.
        var pausesAtOnce = false
        var pausesAtEach = false

        override func connected() {
            events.append("connected")
            if pausesAtOnce { pauseReading() }
        }
        override func received(_ bytes: UnsafeRawBufferPointer) {
            if events.last != "received" { events.append("received") }
            if isPaused { events.append("received while paused") }
            got += bytes
            if pausesAtEach {
                pauseReading()
                resumeLater()
            }
        }
        override func receivedEnd() {
            events.append("end")
            super.receivedEnd()
        }
        override func drained() { events.append("drained") }
        override func closed(_ reason: CloseReason) { self.reason = reason }

        func resumeLater() {
            let bound = LoopBound(self, on: loop)
            loop.execute { bound.value.resumeReading() }
        }
        func write(_ text: String) {
            var text = text
            text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
        }
        var text: String { String(decoding: got, as: UTF8.self) }
    }

    private func connect(
        _ loop: EventLoop, _ fixture: TLSFixture, port: UInt16, _ prepare: @escaping @Sendable (Talker) -> Void = { _ in }
    ) async throws -> LoopBound<Talker> {
        let context = try fixture.trusting
        return try await loop.run {
            let talker = Talker(loop: loop)
            talker.tls = context.session(to: "127.0.0.1", port: port)
            prepare(talker)
            talker.connect(to: .loopback(port: port))
            return LoopBound(talker, on: loop)
        }
    }

    /// Waits until `condition` holds on the loop.
    private func until(_ loop: EventLoop, _ talker: LoopBound<Talker>, _ condition: @escaping @Sendable (Talker) -> Bool) async throws {
        let held = try await eventually { try await loop.run { condition(talker.value) } }
        if !held { Issue.record("\(try await loop.run { (talker.value.events, talker.value.reason, talker.value.got.count) })") }
    }

    private func withPeer(_ options: [String], _ body: (EventLoop, TLSFixture, TLSPeer) async throws -> Void) async throws {
        try await withFolder { folder in
            let fixture = try await TLSFixture(folder: folder)
            try await withTLSPeer(fixture, options) { peer in try await withLoop { loop in try await body(loop, fixture, peer) } }
        }
    }

    /// What has come; nothing at the end.
    private static func some(_ peer: RawPeer) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let got = recv(peer.fd, &bytes, bytes.count, 0)
        return Array(bytes.prefix(max(0, got)))
    }

    @Test(arguments: ["-tls1_2", "-tls1_3"]) func whatIsWrittenBeforeAndAfterArrivesInOrderAndTheEndIsTold(version: String) async throws {
        try await withPeer([version, "-rev"]) { loop, fixture, peer in
            // Written while connecting, queued twice, written again: four lines.
            let talker = try await connect(loop, fixture, port: peer.port)
            try await loop.run {
                talker.value.write("one\n")
                for line in ["two\n", "three\n"] { Array(line.utf8).withUnsafeBytes { talker.value.queue($0) } }
            }
            try await until(loop, talker) { $0.text == "eno\nowt\neerht\n" }
            try await loop.run { talker.value.write("four\nCLOSE\n") }
            try await until(loop, talker) { $0.reason == .endOfFile }
            let (text, events, unsent) = try await loop.run { (talker.value.text, talker.value.events, talker.value.unsentAtClose) }
            #expect(text == "eno\nowt\neerht\nruof\n" && unsent == 0)
            #expect(events.first == "connected" && events.last == "end" && events.filter { $0 == "end" }.count == 1)
        }
    }

    @Test func anEndWithoutCloseNotifyIsACut() async throws {
        try await withPeer(["-rev"]) { loop, fixture, peer in
            let talker = try await connect(loop, fixture, port: peer.port)
            try await loop.run { talker.value.write("one\n") }
            try await until(loop, talker) { $0.text == "eno\n" }
            peer.child.send(SIGKILL)
            try await until(loop, talker) { $0.reason != nil }
            let (reason, events) = try await loop.run { (talker.value.reason, talker.value.events) }
            guard case .tls(let failure) = reason else {
                Issue.record("\(reason as Any)")
                return
            }
            #expect(failure.kind == .truncated && !events.contains("end"))
        }
    }

    /// Our own close is told to the peer in TLS: OpenSSL's server says DONE after a close_notify and ERROR after a cut.
    @Test func closingSaysSo() async throws {
        try await withPeer(["-naccept", "1"]) { loop, fixture, peer in
            let talker = try await connect(loop, fixture, port: peer.port)
            try await until(loop, talker) { $0.isConnected }
            try await loop.run { talker.value.close() }
            let isDone = await eventually { peer.child.output.contains("DONE") }
            #expect(isDone && !peer.child.output.contains("ERROR"))
        }
    }

    @Test func tls11IsRefused() async throws {
        try await withPeer(["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]) { loop, fixture, peer in
            let talker = try await connect(loop, fixture, port: peer.port)
            try await until(loop, talker) { $0.reason != nil }
            let (reason, events) = try await loop.run { (talker.value.reason, talker.value.events) }
            guard case .tls(let failure) = reason else {
                Issue.record("\(reason as Any)")
                return
            }
            #expect(failure.kind == .handshake && failure.reason.hasPrefix("the server speaks no TLS 1.2 or newer") && events.isEmpty)
        }
    }

    /// Four megabytes, with a pause at each piece: none comes during a pause, none is lost, and the end comes last.
    @Test func pausesHoldAndLoseNothing() async throws {
        try await withPeer(["-WWW"]) { loop, fixture, peer in
            let content = (0..<4 << 20).map { UInt8(truncatingIfNeeded: $0 &* 131 ^ $0 >> 11) }
            try Files.replace(fixture.file("large"), with: content)
            let talker = try await connect(loop, fixture, port: peer.port) { $0.pausesAtEach = true }
            try await loop.run { talker.value.write("GET /large HTTP/1.0\r\n\r\n") }
            try await until(loop, talker) { $0.reason != nil }
            let (got, events, reason) = try await loop.run { (talker.value.got, talker.value.events, talker.value.reason) }
            #expect(reason == .endOfFile && events.last == "end" && !events.contains("received while paused"))
            #expect(got.count > content.count && Array(got.suffix(content.count)) == content)
        }
    }

    /// The peer's first words arrive in one piece with the end of the handshake (a relay gathers them), and `connected` pauses.
    @Test func wordsThatComeWithTheHandshakeWaitForAResume() async throws {
        try await withPeer(["-tls1_2"]) { loop, fixture, peer in
            let words = String(repeating: "first words ", count: 1000) + "\n"
            peer.type(words)
            let port = peer.port
            try await withRaw({ client, _ in
                guard let server = try? RawPeer(port: port) else { return }
                let flights = Tally()
                startThread {
                    while true {
                        var bytes = Self.some(server)
                        // After the client's second flight all that comes is gathered: the end of the handshake, and the words.
                        while flights.count >= 2, !bytes.isEmpty, bytes.count < 10_000 { bytes += Self.some(server) }
                        if bytes.isEmpty || !client.send(bytes) { break }
                    }
                }
                while true {
                    let bytes = Self.some(client)
                    flights.add()
                    if bytes.isEmpty || !server.send(bytes) { break }
                }
                server.finishSending()
            }) { relay in
                let talker = try await connect(loop, fixture, port: relay.port) { $0.pausesAtOnce = true }
                try await until(loop, talker) { $0.isConnected }
                try await loop.run { #expect(talker.value.got.isEmpty && !talker.value.tls!.held.isEmpty) }
                try await loop.run { talker.value.resumeReading() }
                try await until(loop, talker) { $0.text == words }
                try await loop.run { talker.value.close() }
            }
        }
    }

    /// A peer that is stopped: what waits is seen, what was not sealed is counted at the end; one that goes on gets all.
    @Test func aPeerThatDoesNotReadHoldsUsBack() async throws {
        try await withPeer(["-rev"]) { loop, fixture, peer in
            let total = 64 << 20
            let line = [UInt8](repeating: 97, count: 1023) + [10]
            let block = Array(repeatElement(line, count: 1024).joined())
            let talker = try await connect(loop, fixture, port: peer.port)
            try await until(loop, talker) { $0.isConnected }
            kill(peer.child.pid, SIGSTOP)
            try await loop.run {
                let stream = talker.value
                // Nothing is read back: the peer's answers stay with the kernel.
                stream.pauseReading()
                for _ in 0..<total >> 20 { block.withUnsafeBytes { stream.write($0) } }
                #expect(stream.waiting > 16 << 20 && !stream.events.contains("drained"))
            }
            kill(peer.child.pid, SIGCONT)
            try await loop.run { talker.value.resumeReading() }
            try await until(loop, talker) { $0.got.count == total }
            let (events, waiting, answer) = try await loop.run { (talker.value.events, talker.value.waiting, talker.value.got) }
            #expect(events.contains("drained") && waiting == 0)
            #expect(answer.prefix(1024).elementsEqual([UInt8](repeating: 97, count: 1023) + [10]))

            kill(peer.child.pid, SIGSTOP)
            try await loop.run {
                let stream = talker.value
                for _ in 0..<total >> 20 { block.withUnsafeBytes { stream.write($0) } }
                let waiting = stream.waiting
                stream.close()
                #expect(stream.unsentAtClose > 16 << 20 && stream.unsentAtClose <= waiting && stream.reason == .ours)
            }
            kill(peer.child.pid, SIGCONT)
        }
    }

    /// TLS 1.3: both sides change their keys, and words pass in both directions before and after.
    @Test func newKeysAreTaken() async throws {
        try await withPeer(["-tls1_3"]) { loop, fixture, peer in
            let talker = try await connect(loop, fixture, port: peer.port)
            try await until(loop, talker) { $0.isConnected }
            peer.type("before\n")
            try await until(loop, talker) { $0.text == "before\n" }
            for round in 1...3 {
                peer.type("K\n")
                let isTaken = await eventually { peer.untaken == 0 }
                #expect(isTaken)
                peer.type("round \(round)\n")
                try await until(loop, talker) { $0.text.hasSuffix("round \(round)\n") }
                try await loop.run { talker.value.write("answer \(round)\n") }
                let answered = await eventually { peer.child.output.contains("answer \(round)") }
                #expect(answered)
            }
            try await loop.run { talker.value.close() }
        }
    }

    /// TLS 1.2: it is refused, which ends the connection at OpenSSL's server; nothing hangs.
    @Test func renegotiationIsRefused() async throws {
        try await withPeer(["-tls1_2", "-msg"]) { loop, fixture, peer in
            let talker = try await connect(loop, fixture, port: peer.port)
            try await until(loop, talker) { $0.isConnected }
            peer.type("before\n")
            try await until(loop, talker) { $0.text == "before\n" }
            peer.type("r\n")
            try await until(loop, talker) { $0.reason != nil }
            let reason = try await loop.run { talker.value.reason }
            guard case .tls(let failure) = reason else {
                Issue.record("\(reason as Any): \(peer.child.output)")
                return
            }
            #expect(failure.kind == .damaged)
        }
    }
}

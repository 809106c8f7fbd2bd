import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import TestSupport
import Testing

/// What a running stack says its services should be given, and that it remembers over a restart.
@Suite(.serialized) struct ResourcesTests {
    private func ask(_ stack: StackFixture) async throws -> JSONValue {
        let answer = try await stack.client.send("GET", "/api/resources", to: .address(.loopback(port: stack.admin)))
        guard answer.status == 200 else { return .null }
        return try JSONValue.parse(answer.body)
    }

    /// Three days of one replica: nearly all CPU in the bucket that ends at 357m, all memory in the one that ends at 634 MiB or so.
    private static func threeDays() -> String {
        let now = WallTime.now.milliseconds
        return """
            {"version":"v3","replicas":[{"replica":1,"samples":4320,"first_ms":\(now - 3 * 86_400_000),"last_ms":\(now),
            "cpu":{"total":1000,"reference_ms":\(now),"weights":[[20,10000]]},"memory":{"total":100,"reference_ms":\(now),"weights":[[30,10000]]}}]}
            """
    }

    @Test func everyServiceIsWatchedScaledOrNot() async throws {
        try await withStack(replicas: "2") { stack in
            let sampled = try await eventually(.seconds(40)) {
                let service = try await ask(stack).list.first
                return (service?["samples"].int ?? 0) >= 2
            }
            let all = try await ask(stack)
            #expect(sampled && all.list.count == 1, "\(all)")
            let service = try required(all.list.first)
            #expect(
                service["service"].string == "correlation-engine" && service["replicas_seen"].int == 2
                    && (service["missing_seconds"].int ?? 0) > 3500, "\(service)")
            #expect(service["resources"].list.map { $0["resource"].string } == ["cpu", "memory"])
            for resource in service["resources"].list {
                #expect(
                    resource["target"].isNull && resource["upper"].isNull && resource["advice"].string == "wait"
                        && resource["used_p95"].int != nil, "\(resource)")
                #expect(
                    resource["decision"]["kind"].string == "resources"
                        && resource["decision"]["sentence"].string?.hasPrefix("too little is known of ") == true)
            }
            let told = try await stack.muster("why", "--resources", "--stack", stack.file)
            #expect(
                told.status == 0 && told.output.contains("of the 1h that are needed, ") && told.output.contains("RESOURCE"),
                "\(told.output)")
            let misspelt = try await stack.muster("why", "corelation-engine", "--resources", "--stack", stack.file)
            #expect(misspelt.status == 2 && misspelt.output.contains("did you mean 'correlation-engine'?"), "\(misspelt.output)")
            let store = try await stack.muster("why", "state", "--resources", "--stack", stack.file)
            #expect(store.status == 1 && store.output.contains("recommendations are for services"), "\(store.output)")
            try await theMemoryIsKept(stack)
        }
    }

    private func theMemoryIsKept(_ stack: StackFixture) async throws {
        let file = "\(stack.folder)/.muster/demo/scaling/correlation-engine.usage"
        let down = try await stack.muster("down", stack.file)
        #expect(down.status == 0 && Files.text(file)?.contains("\"samples\":") == true, "\(down.output)")
        try Files.replace(file, with: Array(Self.threeDays().utf8))
        let up = try await stack.muster("up", "-d", stack.file),
            told = try await stack.muster("why", "correlation-engine", "--resources", "--stack", stack.file)
        #expect(up.status == 0 && told.status == 0, "\(up.output)\(told.output)")
        let cpu = "correlation-engine uses at most 357m of CPU in 95 % of the time; nothing declared; recommend 410m (between "
        #expect(
            told.output.contains(cpu) && told.output.contains("set services.correlation-engine.resources.cpu to 410m in the stack file"),
            "\(told.output)")
        #expect(told.output.contains("declare 410m") && told.output.contains("3.0 days"), "\(told.output)")
        let json = try await stack.muster("why", "correlation-engine", "--resources", "--json", "--stack", stack.file)
        let first = try JSONValue.parse(Array(json.output.utf8)).list.first
        #expect(first?["missing_seconds"].int == 0 && first?["resources"].list.first?["target"].int == 410, "\(json.output)")
        // A damaged file is begun anew.
        let again = try await stack.muster("down", stack.file)
        try Files.replace(file, with: Array("{\"version\":\"v3\",".utf8))
        let last = try await stack.muster("up", "-d", stack.file)
        let samples = try await ask(stack).list.first?["samples"].int ?? -1
        #expect(again.status == 0 && last.status == 0 && (0..<100).contains(samples), "\(last.output) \(samples)")
        #expect(Files.text(file + ".unread") == "{\"version\":\"v3\",")
        try await whatCannotBeReadIsNotWrittenOver(stack, file)
    }

    /// A file that cannot be opened at present (here a link to itself) stays what it is, and is read as soon as it can be.
    private func whatCannotBeReadIsNotWrittenOver(_ stack: StackFixture, _ file: String) async throws {
        let down = try await stack.muster("down", stack.file)
        unlink(file)
        #expect(down.status == 0 && symlink(file, file) == 0)
        let up = try await stack.muster("up", "-d", stack.file)
        let sampled = try await eventually(.seconds(40)) { (try await ask(stack).list.first?["samples"].int ?? 0) >= 1 }
        let again = try await stack.muster("down", stack.file)
        var target = [CChar](repeating: 0, count: 4096)
        #expect(up.status == 0 && sampled && again.status == 0, "\(up.output)\(again.output)")
        #expect(readlink(file, &target, target.count) > 0, "it was written over")
        let last = try await stack.muster("up", "-d", stack.file)
        let before = try await ask(stack).list.first?["samples"].int ?? 0
        #expect(last.status == 0 && before < 100)
        unlink(file)
        try Files.replace(file, with: Array(Self.threeDays().utf8))
        let adopted = try await eventually(.seconds(20)) { (try await ask(stack).list.first?["samples"].int ?? 0) >= 4320 }
        #expect(adopted)
    }
}

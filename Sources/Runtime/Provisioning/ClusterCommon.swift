import Redis
import Sharding

extension ClusterSession {
    /// Functions, users and settings of each node that answered, by id.
    func common(_ reading: ClusterReading) async -> [String: NodeCommon] {
        var found: [String: NodeCommon] = [:]
        for report in reading.reports { found[report.id] = await common(of: report.asked) }
        return found
    }

    func common(of address: NodeAddress) async -> NodeCommon {
        guard let client = try? client(address) else { return NodeCommon() }
        var settings = RedisCommand("CONFIG GET")
        for name in NodeCommon.settingNames { settings.add(name) }
        let answers = await client.results([RedisCommand("FUNCTION LIST", "WITHCODE"), RedisCommand("ACL LIST"), settings])
        return NodeCommon(
            libraries: (try? answers[0].get()).map { answer in
                Restore.libraries(answer).mapValues { String(decoding: $0, as: UTF8.self) }
            },
            users: (try? answers[1].get().array).map(ClusterSession.users),
            settings: (try? answers[2].get().array).map { pairs in
                let words = pairs.map { $0.string ?? "" }
                return Dictionary(zip(words, words.dropFirst()).enumerated().filter { $0.offset % 2 == 0 }.map(\.element)) { $1 }
            })
    }

    /// Lines of `ACL LIST`: `user alice on #… ~* +@all`. Passwords are hashes in it.
    private static func users(_ lines: [RESPValue]) -> [String: String] {
        var out: [String: String] = [:]
        for line in lines {
            let words = (line.string ?? "").split(separator: " ", maxSplits: 2)
            if words.count == 3, words[0] == "user", words[1] != "default" { out[String(words[1])] = String(words[2]) }
        }
        return out
    }

    /// Gives a node the libraries that it lacks and another one has. One of the same name with other code is refused.
    func copyLibraries(from model: NodeAddress, to address: NodeAddress, tell: (String) -> Void) async throws(ProvisioningFailure) {
        let answer: RESPValue
        do { answer = try await client(model).ask("FUNCTION LIST", "WITHCODE") } catch {
            // Servers before 7.0 have none.
            if error.message.contains("unknown command") || error.message.contains("Unknown") { return }
            throw error
        }
        let ours = Restore.libraries(answer)
        if ours.isEmpty { return }
        let theirs = Restore.libraries(try await client(address).ask("FUNCTION LIST", "WITHCODE"))
        for (name, code) in ours.sorted(by: { $0.key < $1.key }) where theirs[name] != code {
            guard theirs[name] == nil else {
                throw ProvisioningFailure(.refused, "has another library of functions '\(name)' than \(model)", node: address)
            }
            var command = RedisCommand("FUNCTION LOAD")
            command.add(code)
            _ = try await client(address).ask(command)
            tell("\(address) has the library of functions '\(name)'")
        }
    }

    /// Gives a node the users that it lacks and another one has. Passwords go as the hashes that `ACL LIST` tells; where the node keeps
    /// its users in a file, they are written into it.
    func copyUsers(from model: NodeAddress, to address: NodeAddress, tell: (String) -> Void) async throws(ProvisioningFailure) {
        // Who may not ask for users cannot copy them; `status` does not compare them either then.
        guard let ours = await common(of: model).users, let theirs = await common(of: address).users else { return }
        var copied = false
        for (name, rules) in ours.sorted(by: { $0.key < $1.key }) where theirs[name] == nil {
            var command = RedisCommand("ACL SETUSER")
            command.add(name)
            for word in rules.split(separator: " ") { command.add(String(word)) }
            _ = try await client(address).ask(command)
            tell("\(address) has the user '\(name)'")
            copied = true
        }
        if !copied { return }
        // Without a file for users this is an error, and they last as long as the process, as those of the model do.
        do { _ = try await client(address).ask("ACL SAVE") } catch {
            guard error.code == .server else { throw error }
            tell("\(address) has no file for its users: after a restart they are gone, and muster redis fix brings them back")
        }
    }

    /// Whom a new master takes functions and users from: a master that serves.
    func model(_ view: ClusterView, except ids: Set<String>) -> ClusterView.Member? {
        view.masters.first { $0.answers && !$0.slots.isEmpty && !ids.contains($0.id) }
    }
}

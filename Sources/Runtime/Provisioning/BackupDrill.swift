import Basics
import EventLoops
import Redis
import Sharding

/// Proves a backup: restores all of it into an empty private server of this machine and compares every key. A backup that was never
/// restored is a hope.
///
/// This machine needs the memory of all the data, and of one snapshot more.
public enum BackupDrill {
    public static func run(folder: String, on loop: EventLoop, tell: @escaping @Sendable (String) -> Void) async throws(ProvisioningFailure)
        -> RestoreReport
    {
        let manifest = try BackupManifest.read(folder: folder)
        try manifest.verify(folder: folder, tell: tell)
        let server = try await ScratchServer.start(snapshot: nil, on: loop, tell: tell)
        var options = Restore.Options(folder: folder)
        options.verifiesAll = true
        let restore = Restore(manifest: manifest, options: options, target: .open(server), loop: loop, existing: 0, isResumed: false)
        do throws(ProvisioningFailure) {
            let report = try await restore.run(tell: tell)
            await server.end()
            return report
        } catch {
            await server.end()
            throw error
        }
    }
}

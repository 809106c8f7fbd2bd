/// A PostgreSQL primary with its standbys, as the stack file declares them.
public struct PostgresSettings: Sendable, Equatable {
    /// What has a commit before it is acknowledged.
    public enum Acknowledge: String, Sendable, CaseIterable {
        /// One standby has it on its disk.
        case replica
        /// One standby has it on its disk and shows it to readers.
        case applied
        /// The primary alone: what a failover may lose.
        case primary
    }

    /// Where the password of the role arrives that services use.
    public enum PasswordPlace: String, Sendable, CaseIterable {
        /// In a file that the address names.
        case file
        /// In the address.
        case url
    }

    /// Which servers the address names.
    public enum Servers: String, Sendable, CaseIterable {
        /// All, in libpq's form for several; the client finds the primary among them.
        case all
        /// The node that was primary when the service was started.
        case primary
    }

    /// Standbys beside the primary.
    public let replicas: Int
    /// The port of the first node, whose successors take the following ones; nil: free ones, kept from then on.
    public let port: UInt16?
    public let acknowledge: Acknowledge
    /// How long writes wait where no standby streams before the primary acknowledges them alone; nil: until one does.
    public let relax: Duration?
    /// A standby that is further behind gets no reads.
    public let maxLag: Duration
    /// From the primary's death to the first acknowledged write.
    public let failover: Duration
    /// A standby may take over that is so many bytes behind what the primary was last known to have.
    public let maxLoss: Int
    /// Databases to make; the first is the one that services are told.
    public let databases: [String]
    /// Roles to make that may log in, each with a password of its own; the first owns the databases and is the one that services are told.
    public let roles: [String]
    /// Extensions of every database.
    public let extensions: [String]
    /// Settings of the servers, given through.
    public let settings: [Setting]
    /// Functions that only read, or that write, whatever the catalog says of them.
    public let readOnlyFunctions: [String]
    public let writingFunctions: [String]
    public let password: PasswordPlace
    public let url: Servers
    /// Whose processes the servers are when root starts the stack: PostgreSQL refuses to run as root.
    public let user: String

    /// The ports that the stack file fixes, one a node, the first node's first. Empty: free ones are chosen.
    public var fixedPorts: [UInt16] {
        guard let first = port else { return [] }
        return (0...replicas).compactMap { UInt16(exactly: Int(first) + $0) }
    }

    /// A setting of the servers, for their configuration file.
    public struct Setting: Sendable, Equatable {
        public let name: String
        public let value: String

        public init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    public init(
        replicas: Int = 2, port: UInt16? = nil, acknowledge: Acknowledge = .replica, relax: Duration? = .seconds(10),
        maxLag: Duration = .seconds(5), failover: Duration = .seconds(3), maxLoss: Int = 16 << 20, databases: [String] = ["app"],
        roles: [String] = ["app"], extensions: [String] = [], settings: [Setting] = [], readOnlyFunctions: [String] = [],
        writingFunctions: [String] = [], password: PasswordPlace = .file, url: Servers = .all, user: String = "postgres"
    ) {
        self.replicas = replicas
        self.port = port
        self.acknowledge = acknowledge
        self.relax = relax
        self.maxLag = maxLag
        self.failover = failover
        self.maxLoss = maxLoss
        self.databases = databases
        self.roles = roles
        self.extensions = extensions
        self.settings = settings
        self.readOnlyFunctions = readOnlyFunctions
        self.writingFunctions = writingFunctions
        self.password = password
        self.url = url
        self.user = user
    }

    /// The servers that run: the primary and its standbys.
    public var nodes: Int { replicas + 1 }
}

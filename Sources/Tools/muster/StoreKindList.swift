import MemcachedStores
import PostgresStores
import RedisStores
import StoreKinds

/// The kinds of store that this program runs. A kind that is not here is refused when a stack that has one of it starts.
let storeKinds: [any StoreKind] = [RedisKind(), MemcachedKind(), PostgresKind()]

import CorrelationEngine
import Glibc

exit(EngineProcess.run())

/** What users need to test their own publishers and handlers without a server, a file or a wait. */
import { type ConnectOptions, connect } from '../api/connect.ts'
import type { Post } from '../api/post.ts'
import { seededRandom, silentLogger } from '../environment/index.ts'
import { VirtualClock } from './virtual-clock.ts'

export { seededRandom, silentLogger } from '../environment/index.ts'
export { VirtualClock } from './virtual-clock.ts'

export interface TestConnection {
  readonly post: Post
  /** The connection's clock. Delays, retries and timeouts pass when it is advanced, and never by themselves. */
  readonly clock: VirtualClock
}

export interface TestConnectOptions extends ConnectOptions {
  /** Default `'memory:'`, a store that nobody else sees. `'memory:name'` is shared within the process. */
  readonly url?: string
  /** Where the connection's random sequence starts: the same seed, the same ids and backoffs. Default 1. */
  readonly seed?: number
  /** Share one between connections to let their time pass together. Default: one of its own. */
  readonly clock?: VirtualClock
}

/**
 * Connects to a store in memory with a clock that stands still until it is told to move. It logs nothing unless
 * `environment.logger` is given. Rejects as `connect` does. Close `post` at the end of the test.
 */
export async function connectTest(options: TestConnectOptions = {}): Promise<TestConnection> {
  const { url = 'memory:', seed = 1, clock = new VirtualClock(), ...others } = options
  const environment = { random: seededRandom(seed), logger: silentLogger, ...others.environment, clock }
  return { post: await connect(url, { ...others, environment }), clock }
}

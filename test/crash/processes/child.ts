import { setTimeout } from 'node:timers/promises'
import { type ConnectOptions, PosthornError, silentLogger } from 'posthorn'
import { LEASE } from '../topics.ts'

/**
 * What the killed processes have in common. Each says when it works, and stops in good order when the channel to the
 * test closes, which happens however the test ends.
 */
export interface Assignment {
  readonly url: string
  readonly ledgerFolder: string
  readonly name: string
  readonly incarnation: number
  readonly seed: number
}

const PAUSE_MS = 20
/** `pg` says with these, or with no code at all, that its connection failed. */
const CONNECTION_CODE = /^(57P0|08|E[A-Z]+$)/

export const assignment = JSON.parse(process.argv[2] ?? '{}') as Assignment

const hasServer = !assignment.url.startsWith('sqlite:')

/** How to connect. What is logged of a server that is killed on purpose is left out. */
export const connectOptions: ConnectOptions = {
  lease: LEASE,
  ...(hasServer && { environment: { logger: silentLogger } }),
}

export function reportReady(): void {
  process.send?.('ready')
}

export function whenAskedToStop(stop: () => Promise<void>): void {
  process.on('SIGINT', () => {})
  process.once('disconnect', async () => {
    await stop()
    process.exit()
  })
}

/** Whether it failed because the server was killed, so that it may be tried again, or be left. */
export function isOutage(error: unknown): boolean {
  if (!hasServer) return false
  if (error instanceof PosthornError) return error.retryable || (error.cause !== undefined && isOutage(error.cause))
  const { code } = error as { readonly code?: unknown }
  return typeof code === 'string' ? CONNECTION_CODE.test(code) : /connection|queryable/i.test(String(error))
}

/** Does it again and again while the server is away. */
export async function insist<Value>(work: () => Promise<Value>): Promise<Value> {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!isOutage(error)) throw error
      await setTimeout(PAUSE_MS)
    }
  }
}

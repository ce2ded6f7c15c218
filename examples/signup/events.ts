import { topic } from 'posthorn'
import { z } from 'zod'

export const userSignedUp = topic('user.signed_up', {
  schema: z.object({ userId: z.string(), email: z.email(), name: z.string() }),
  key: (user) => user.userId,
})

/** What happens to an account: it is created, then verified, then charged. */
export const accountChanged = topic('account.changed', {
  schema: z.object({ userId: z.string(), change: z.enum(['created', 'verified', 'charged']) }),
  key: ({ userId }) => userId,
})

/** What the four services are told about a new user. */
export interface NewUser {
  readonly userId: string
  readonly email: string
  readonly name: string
}

export interface CallOptions {
  /** Equal for all attempts at the same piece of work, so that a service can tell a repetition. */
  readonly idempotencyKey: string
  readonly signal: AbortSignal
}

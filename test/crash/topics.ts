import { queue, topic } from 'posthorn'

/** How a message is meant to end; the label, unique to it, says who made it. */
export interface Payload {
  readonly label: string
  /** Handlers discard it: it is to become a dead letter. */
  readonly discard?: boolean
}

export const events = topic<Payload>('crash.events', { partitions: 2, key: ({ label }) => label })
export const jobs = queue<Payload>('crash.jobs')

/** What happens to one user, in the order of `sequence`. */
export interface UserEvent extends Payload {
  readonly user: string
  readonly sequence: number
}

export const users = topic<UserEvent>('crash.users', { partitions: 4, key: ({ user }) => user })
/** Published by the handlers of `users`, within the transaction in which they take effect. */
export const receipts = topic<Payload>('crash.receipts')

/** The subscriptions of `users`: one in order, with a durable step; one that takes effect in the store itself. */
export const ORDERED = 'ordered'
export const TRANSACTIONAL = 'transactional'

/** The subscriptions of `events`: one with a handler for single messages, one with a handler for batches. */
export const SINGLE = 'single'
export const BATCHED = 'batched'

export const LEASE = '1s'

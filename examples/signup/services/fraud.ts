import type { CallOptions, NewUser } from '../events.ts'
import { postJson, readAddress } from './addresses.ts'

const url = readAddress('FRAUD_URL')

/** Asks the fraud check for its opinion of a new user. */
export async function checkFraud(user: NewUser, { idempotencyKey, signal }: CallOptions): Promise<void> {
  await postJson(url, user, { 'idempotency-key': idempotencyKey }, signal)
}

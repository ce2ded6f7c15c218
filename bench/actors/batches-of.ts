import { randomUUID } from 'node:crypto'
import { signup } from '../signup.ts'

const BATCH_MESSAGES = 500

/** So many sign-ups as batches of JSON, encoded as they are asked for. */
export function* batchesOf(messages: number) {
  for (let first = 0; first < messages; first += BATCH_MESSAGES) {
    const batch: string[] = []
    for (let index = first; index < first + BATCH_MESSAGES; index++) batch.push(encode(index))
    yield { count: batch.length, data: `[${batch.join(',')}]` }
  }
}

function encode(index: number): string {
  const data = signup(index)
  return JSON.stringify({ id: randomUUID(), time: '2026-11-01T00:00:00.000Z', subject: data.userId, data })
}

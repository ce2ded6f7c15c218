import { failureOf } from '../settlement/failure.ts'
import { outageIn } from './is-outage.ts'

const LENGTH_MAX = 300

/** What failed, in one line: the error and, behind it, the one that names the outage. */
export function reasonOf(thrown: unknown): string {
  const outage = outageIn(thrown)
  const texts = outage === undefined || outage === thrown ? [thrown] : [thrown, outage]
  return texts.map(textOf).join(': ').slice(0, LENGTH_MAX).toWellFormed()
}

function textOf(error: unknown): string {
  const { message, code, name } = failureOf(error, 0, 0)
  return message || code || name
}

import type { StandardSchemaV1 } from '@standard-schema/spec'

/** What a schema said: its output, or in `problem` why the payload does not fit. */
export type Validation = { readonly output: unknown } | { readonly problem: string; readonly cause?: unknown }

const ISSUES_SHOWN_MAX = 5

/** Runs a Standard Schema; a promise only when the schema answers with one. Never throws or rejects. */
export function validate(schema: StandardSchemaV1, payload: unknown): Validation | Promise<Validation> {
  try {
    const result = schema['~standard'].validate(payload)
    return result instanceof Promise ? result.then(fromResult, fromThrown) : fromResult(result)
  } catch (error) {
    return fromThrown(error)
  }
}

function fromResult(result: StandardSchemaV1.Result<unknown>): Validation {
  return result.issues === undefined ? { output: result.value } : { problem: describeIssues(result.issues) }
}

function fromThrown(cause: unknown): Validation {
  return { problem: `the schema threw ${cause instanceof Error ? cause.message : 'while it validated'}`, cause }
}

function describeIssues(issues: readonly StandardSchemaV1.Issue[]): string {
  const shown = issues.slice(0, ISSUES_SHOWN_MAX).map(describeIssue)
  if (issues.length > shown.length) shown.push(`and ${issues.length - shown.length} more`)
  return shown.join('; ').replace(/\.$/, '')
}

function describeIssue(issue: StandardSchemaV1.Issue): string {
  if (issue.path === undefined || issue.path.length === 0) return issue.message
  const path = issue.path.map((segment) => String(typeof segment === 'object' ? segment.key : segment))
  return `${path.join('.')}: ${issue.message}`
}

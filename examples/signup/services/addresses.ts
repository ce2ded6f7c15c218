/** Where the four services are, from the environment. Throws a plain sentence when one is missing. */
export function readAddress(name: 'SMTP_URL' | 'FRAUD_URL' | 'STRIPE_API_KEY' | 'SLACK_WEBHOOK_URL'): string {
  const address = process.env[name]
  if (address === undefined) throw new Error(`Set the environment variable ${name}; README.md says to what.`)
  return address
}

/** Sends JSON and throws unless the answer is a success. */
export async function postJson(url: string, body: unknown, headers: Record<string, string>, signal: AbortSignal) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
    signal,
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${new URL(url).host} answered ${response.status}: ${text.slice(0, 200)}`)
  return text
}

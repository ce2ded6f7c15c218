import { connect, topic } from 'posthorn'

interface Upload {
  readonly tenant: string
  readonly file: string
}

const uploaded = topic<Upload>('file.uploaded')
await using post = await connect('sqlite:data/uploads.db')
const starts: { readonly tenant: string; readonly atMs: number }[] = []
const { promise: done, resolve } = Promise.withResolvers<void>()

for (let n = 1; n <= 30; n++) await post.publish(uploaded, { tenant: 'acme', file: `${n}.png` })
for (let n = 1; n <= 3; n++) await post.publish(uploaded, { tenant: 'globex', file: `${n}.png` })

async function scan({ tenant }: Upload): Promise<void> {
  starts.push({ tenant, atMs: performance.now() })
  if (starts.length === 33) resolve()
}

// #region subscribe
post.subscribe(uploaded, 'virus-scan', (event) => scan(event.data), {
  concurrency: 50,
  rateLimit: [
    { limit: 100, per: '1s' },
    { limit: 20, per: '1s', by: (event) => event.data.tenant },
  ],
  maxInFlight: { limit: 5, by: (event) => event.data.tenant },
})
// #endregion

await done
const order = starts.map(({ tenant }) => tenant)
const acmeBefore = order.slice(0, order.lastIndexOf('globex')).filter((tenant) => tenant === 'acme').length
console.log(`globex was done before acme was: ${acmeBefore < 10}`)

/** The most starts of a tenant within any second. */
function most(tenant: string): number {
  const times = starts.filter((start) => start.tenant === tenant).map(({ atMs }) => atMs)
  return Math.max(...times.map((from) => times.filter((at) => at >= from && at < from + 1_000).length))
}
console.log(`never more than 20 of acme in a second: ${most('acme') <= 20}`)
